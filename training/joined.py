"""A stage of hierarchical denoising over a whole window in one forward, for inputs and contexts that are known.

A roll-out has to make blocks one after another; where the clean video is given, the context pass and the denoise pass
of all blocks are independent of each other's output and share a forward: C(0) .. C(N-1), D(0) .. D(N-1). Attention
keeps them apart as pages do: C(b) and D(b) see C of the earlier blocks in the window, and their own tokens. Unlike
pages, keys and values of C have gradients: this is where cache passes are trained.

Letters: B samples, N blocks, G segments (2 N a sample, context passes first), F latent frames of a block, C latent
channels, Y and X latent height and width, L tokens of a block, H heads, K channels of a head.
"""

import torch
from torch import Tensor

from engine.model.dit import CausalWan
from engine.model.segments import ForwardInputs, PagedCache, TextRows
from kernels.attention import PageTable, page_table
from kernels.attention_choice import PagedAttention
from training.forward import Mask, joined_attention


def denoise_joined(
    model: CausalWan,
    inputs_BNFCYX: Tensor,
    contexts_BNFCYX: Tensor,
    timesteps_B: Tensor,
    context_timesteps_B: Tensor,
    text: TextRows,
    window_blocks: int,
) -> Tensor:
    """The flow of the denoise passes of all blocks.

    Args:
        model: of ``training.forward.trainable_wan``.
        inputs_BNFCYX: what the denoise passes read, at ``timesteps_B``.
        contexts_BNFCYX: what the cache passes read, at ``context_timesteps_B``.
        timesteps_B: 0 .. 1000, float32.
        context_timesteps_B: likewise.
        text: rows of each sample.
        window_blocks: blocks that a pass attends to, its own included.

    Returns:
        [B, N, F, C, Y, X].
    """
    num_samples, num_blocks = inputs_BNFCYX.shape[:2]
    device = inputs_BNFCYX.device
    num_segments = 2 * num_samples * num_blocks
    inputs = ForwardInputs(
        latents_GFCYX=torch.cat([contexts_BNFCYX, inputs_BNFCYX], dim=1).flatten(0, 1),
        timesteps_G=torch.stack([context_timesteps_B, timesteps_B], dim=1).repeat_interleave(num_blocks, 1).flatten(),
        blocks_G=torch.arange(num_blocks, device=device).repeat(2 * num_samples),
        text=text,
        pages=page_table([()] * num_segments, (), device),
        num_cache=0,
    )
    no_pages = torch.empty(model.config.num_layers, 0, 0, 0, 0, device=device)
    flow = model.compute(inputs, PagedCache(no_pages, no_pages), _context_attention(num_samples, window_blocks))
    denoised: Tensor = flow.unflatten(0, (num_samples, 2, num_blocks))[:, 1]
    return denoised


def _context_attention(num_samples: int, window_blocks: int) -> PagedAttention:
    """Self-attention of one sample's segments as the module says, with the arguments of ``paged_attention``."""
    dense = joined_attention(num_samples, Mask.BIDIRECTIONAL)

    def attend(q: Tensor, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, table: PageTable) -> Tensor:
        queries, keys, values = (x.unflatten(0, (num_samples, 2, -1)) for x in (q, k, v))
        outs = []
        for block in range(queries.shape[2]):
            seen = slice(max(0, block + 1 - window_blocks), block)
            for kind in range(2):
                own_keys, own_values = (
                    torch.cat([x[:, 0, seen], x[:, kind, block, None]], dim=1).flatten(0, 1) for x in (keys, values)
                )
                outs.append(dense(queries[:, kind, block], own_keys, own_values, k_pages, v_pages, table))
        joined: Tensor = torch.stack(outs, dim=1).unflatten(1, (-1, 2)).transpose(1, 2).flatten(0, 2)
        return joined

    return attend
