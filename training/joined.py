"""A stage of hierarchical denoising over a whole window in one forward, for inputs and contexts that are known.

A roll-out has to make blocks one after another; where the clean video is given, the context pass and the denoise pass
of all blocks are independent of each other's output and share a forward: C(0) .. C(N-1), D(0) .. D(N-1). Attention
keeps them apart as pages do: C(b) and D(b) see C of the earlier blocks in the window, and their own tokens. Unlike
pages, keys and values of C have gradients: this is where cache passes are trained.

Letters: B samples, N blocks, G segments (2 N a sample, context passes first), F latent frames of a block, C latent
channels, Y and X latent height and width, L tokens of a block, H heads, K channels of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from engine.model.dit import CausalWan
from engine.model.segments import ForwardInputs, PagedCache, TextRows
from kernels.attention.choice import PagedAttention
from kernels.attention.table import PageTable, page_table
from training.forward import attend


def denoise_joined(
    model: CausalWan,
    inputs_BNFCYX: Tensor,
    contexts_BNFCYX: Tensor,
    timesteps_B: Tensor,
    context_timesteps_B: Tensor,
    text: TextRows,
    window_blocks: int,
) -> Tensor:
    """The flow of both passes of all blocks.

    Args:
        model: of ``training.forward.trainable_wan``.
        inputs_BNFCYX: what the denoise passes read, at ``timesteps_B``.
        contexts_BNFCYX: what the cache passes read, at ``context_timesteps_B``.
        timesteps_B: 0 .. 1000, float32.
        context_timesteps_B: likewise.
        text: rows of each sample.
        window_blocks: blocks that a pass attends to, its own included.

    Returns:
        [B, 2, N, F, C, Y, X]: of the cache passes, then of the denoise passes.
    """
    num_samples, num_blocks = inputs_BNFCYX.shape[:2]
    device = inputs_BNFCYX.device
    num_segments = 2 * num_samples * num_blocks
    inputs = ForwardInputs(
        latents_GFCYX=torch.cat([contexts_BNFCYX, inputs_BNFCYX], dim=1).flatten(0, 1),
        timesteps_G=torch.stack([context_timesteps_B, timesteps_B], dim=1).repeat_interleave(num_blocks, 1).flatten(),
        starts_G=torch.arange(num_blocks, device=device).repeat(2 * num_samples) * inputs_BNFCYX.shape[2],
        text=text,
        pages=page_table([()] * num_segments, (), device, page_tokens=1),
        num_cache=0,
    )
    no_pages = torch.empty(model.config.num_layers, 0, 0, 0, 0, device=device)
    flow = model.compute(inputs, PagedCache(no_pages, no_pages), _context_attention(num_samples, window_blocks))
    by_pass: Tensor = flow.unflatten(0, (num_samples, 2, num_blocks))
    return by_pass


def _context_attention(num_samples: int, window_blocks: int) -> PagedAttention:
    """Self-attention of one sample's segments as the module says, with the arguments of ``paged_attention``.

    All blocks see equally many keys, so that one product serves them; a bias hides what is before the first block.
    """

    def attend_all(q: Tensor, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, table: PageTable) -> Tensor:
        num_blocks, num_tokens = len(q) // (2 * num_samples), q.shape[1]
        num_earlier = min(window_blocks, num_blocks) - 1
        keys, values = (_with_earlier(x, num_samples, num_earlier).transpose(1, 2) for x in (k, v.to(k.dtype)))
        missing_N1 = (num_earlier - torch.arange(num_blocks, device=q.device)).clamp(min=0)[:, None] * num_tokens
        hidden_NT = torch.arange(keys.shape[2], device=q.device) < missing_N1
        bias_NT = torch.zeros(hidden_NT.shape, dtype=q.dtype, device=q.device).masked_fill(hidden_NT, -math.inf)
        bias = bias_NT.repeat(2 * num_samples, 1)[:, None, None, :] if num_earlier else None
        return attend(q.transpose(1, 2), keys, values, bias).transpose(1, 2)

    return attend_all


def _with_earlier(x_GLHK: Tensor, num_samples: int, num_earlier: int) -> Tensor:
    """Each segment's rows behind those of the cache passes of the ``num_earlier`` blocks before it; zeros where there
    is none. [G, (num_earlier + 1) * L, H, K]."""
    x = x_GLHK.unflatten(0, (num_samples, 2, -1))
    num_blocks = x.shape[2]
    cached = functional.pad(x[:, 0], (0, 0, 0, 0, 0, 0, num_earlier, 0))
    earlier = [cached[:, first : first + num_blocks, None] for first in range(num_earlier)]
    seen = [torch.cat([*earlier, x[:, kind, :, None]], dim=2) for kind in range(2)]
    return torch.stack(seen, dim=1).flatten(3, 4).flatten(0, 2)
