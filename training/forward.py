"""The forward of training: whole windows at once and differentiable, without pages, on the product's own weights.

The blocks of a sample are the segments of the product's forward; here their attention joins them into one sequence.
Knows no loss, no schedule and no data. Source: spec section 1.6.

Letters: B samples, N blocks of a sample, G = B * N segments in sample order, F latent frames of a block, C latent
channels, Y and X latent height and width, L tokens of a block, E width, H heads, K channels of a head, T text rows,
V layers.
"""

import math
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from transformers import UMT5EncoderModel

from engine.config import TransformerConfig
from engine.model.dit import Block, CausalWan
from engine.model.segments import ForwardInputs, PagedCache, TextRows
from kernels.attention.choice import PagedAttention
from kernels.attention.table import PageTable
from kernels.elementwise.formula import rms_norm

WINDOW_BLOCKS = 7
POSITION_SCALE = 0.2
"""Size of the waves that learned positions start from."""
BEATS = 16
PADDING = 0
"""Token id that fills up short prompts."""


class Mask(StrEnum):
    """Which blocks of a sample a block attends to."""

    BIDIRECTIONAL = "bidirectional"
    BLOCK_CAUSAL = "block_causal"
    """Itself and those before it in the window, as when blocks are made one after the other."""


class JoinedBlock(Block):
    """A layer whose segments of one sample read that sample's text together: no loop, no in-place writes."""

    def _attend_text(self, hidden_GLE: Tensor, text: TextRows) -> Tensor:
        num_samples = len(text.bias_GT)
        q_GLE = rms_norm(self.cross_attn.q(hidden_GLE), self.cross_attn.norm_q.weight, self.eps)
        q_BHLK = _joined(q_GLE.unflatten(-1, (self.num_heads, -1)), num_samples)
        keys, values = (rows[:, self.layer].transpose(1, 2) for rows in (text.keys_GNTHK, text.values_GNTHK))
        bias = text.bias_GT[:, None, None, :].to(q_BHLK.dtype)
        attended_BHLK = attend(q_BHLK, keys.to(q_BHLK.dtype), values.to(q_BHLK.dtype), bias)
        out: Tensor = self.cross_attn.o(attended_BHLK.transpose(1, 2).reshape(hidden_GLE.shape))
        return out


def trainable_wan(config: TransformerConfig) -> CausalWan:
    """The product's transformer with fresh weights, its layers fit for ``flow``. Same names, same tensors.

    Gates start near zero and the last map at zero, so that a fresh network is close to the identity.
    """
    model = CausalWan(config)
    model.blocks = nn.ModuleList(JoinedBlock(config, layer) for layer in range(config.num_layers))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
    for name, parameter in model.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=config.dim**-0.5)
        if name in {"head.head.weight", "time_projection.1.weight"}:
            nn.init.zeros_(parameter)
        if name == "position_embedding":
            parameter.data.copy_(_waves(*parameter.shape))
        if name == "frame_embedding":
            parameter.data.copy_(_beats(*parameter.shape))
    return model


def _beats(frames: int, channels: int) -> Tensor:
    """Positions in time to start from [T, E]: waves of up to a quarter turn a frame, each in a random direction."""
    frequencies_R = math.tau * torch.arange(1, BEATS + 1) / (4 * BEATS)
    angles_TR = frequencies_R * torch.arange(frames)[:, None]
    waves_TR = torch.cat([angles_TR.sin(), angles_TR.cos()], dim=1)
    directions_RE = torch.randn(2 * BEATS, channels, generator=torch.Generator().manual_seed(0))
    return POSITION_SCALE / math.sqrt(BEATS) * waves_TR @ directions_RE


def _waves(channels: int, rows: int, columns: int) -> Tensor:
    """Positions to start from [E, Y, X]: waves of up to two turns over the grid, along rows, then along columns."""
    num_waves = channels // 4
    frequencies_R = 2 * math.tau * torch.arange(1, num_waves + 1) / num_waves
    rows_RY, columns_RX = (frequencies_R[:, None] * (torch.arange(size) + 0.5) / size for size in (rows, columns))
    rows_EY, columns_EX = (torch.cat([x.sin(), x.cos()]) for x in (rows_RY, columns_RX))
    parts = (rows_EY[:, :, None].expand(-1, -1, columns), columns_EX[:, None, :].expand(-1, rows, -1))
    return POSITION_SCALE * torch.cat(parts)


def flow(
    model: CausalWan,
    latents_BNFCYX: Tensor,
    timesteps_BN: Tensor,
    text: TextRows,
    mask: Mask,
    *,
    first_block: int | Tensor = 0,
    window_blocks: int = WINDOW_BLOCKS,
) -> Tensor:
    """The flow (noise minus clean) that ``model``, of ``trainable_wan``, predicts for every block.

    Args:
        model: its layers must be ``JoinedBlock``.
        latents_BNFCYX: noisy latents.
        timesteps_BN: 0 .. 1000, float32.
        text: rows of each sample, from ``text_rows``.
        mask: who attends to whom.
        first_block: absolute index of each sample's first block, one for all or [B].
        window_blocks: blocks that a block of ``BLOCK_CAUSAL`` attends to, itself included.

    Returns:
        [B, N, F, C, Y, X].
    """
    num_samples, num_blocks = latents_BNFCYX.shape[:2]
    device = latents_BNFCYX.device
    first_B = torch.as_tensor(first_block, device=device).expand(num_samples)
    inputs = ForwardInputs(
        latents_GFCYX=latents_BNFCYX.flatten(0, 1),
        timesteps_G=timesteps_BN.flatten(),
        starts_G=(first_B[:, None] + torch.arange(num_blocks, device=device)).flatten() * latents_BNFCYX.shape[2],
        text=text,
        pages=_no_pages(num_samples * num_blocks, device),
        num_cache=0,
    )
    attention = joined_attention(num_samples, mask, window_blocks)
    flow_GFCYX = model.compute(inputs, _no_cache(model, inputs), attention)
    by_sample: Tensor = flow_GFCYX.unflatten(0, (num_samples, num_blocks))
    return by_sample


def joined_attention(num_samples: int, mask: Mask, window_blocks: int = WINDOW_BLOCKS) -> PagedAttention:
    """Self-attention among the segments of each sample, with the arguments of ``paged_attention``; reads no page."""

    def attend_joined(q: Tensor, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, table: PageTable) -> Tensor:
        q_BHLK, k_BHLK, v_BHLK = (_joined(x, num_samples) for x in (q, k, v.to(k.dtype)))
        num_blocks, num_tokens = len(q) // num_samples, q.shape[1]
        if mask is Mask.BIDIRECTIONAL or num_blocks == 1:
            out_BHLK = attend(q_BHLK, k_BHLK, v_BHLK)
        else:
            out_BHLK = _block_causal(q_BHLK, k_BHLK, v_BHLK, num_tokens, window_blocks)
        return out_BHLK.transpose(1, 2).reshape(q.shape)

    return attend_joined


def text_rows(model: CausalWan, encoder: UMT5EncoderModel, tokens_BT: Tensor) -> TextRows:
    """Keys and values of each sample's prompt in every layer, differentiable, equal to ``encode_context``.

    ``tokens_BT``: token ids, at most ``text_len`` a prompt, filled up with ``PADDING`` behind. One row after the
    prompt stands for all padding rows of the product's embedding; rows after that one have bias minus infinity.
    """
    num_tokens_B1 = (tokens_BT != PADDING).sum(1, keepdim=True)
    valid_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < num_tokens_B1
    rows_BTX = encoder(input_ids=tokens_BT, attention_mask=valid_BT.long()).last_hidden_state
    rows_BTX = functional.pad(rows_BTX * valid_BT[..., None], (0, 0, 0, 1))
    text_BTE = model.text_embedding(rows_BTX)
    layers = [block for block in model.blocks if isinstance(block, Block)]
    keys, values = zip(*(layer.text_keys_values(text_BTE) for layer in layers), strict=True)
    bias_BT = _padding_bias(num_tokens_B1, rows_BTX.shape[1], model.config.text_len)
    num_rows_B = torch.full_like(num_tokens_B1[:, 0], rows_BTX.shape[1], dtype=torch.int32)
    return TextRows(torch.stack(keys, dim=1), torch.stack(values, dim=1), bias_BT, num_rows_B)


def _padding_bias(num_tokens_B1: Tensor, num_rows: int, text_len: int) -> Tensor:
    """0 for the prompt's rows, ln(padding rows) for the row after them, minus infinity for the rest: [B, T]."""
    row_T = torch.arange(num_rows, device=num_tokens_B1.device)
    padding_B1 = (text_len - num_tokens_B1).float().log()
    bias_BT = torch.where(row_T == num_tokens_B1, padding_B1, torch.zeros((), device=row_T.device))
    return bias_BT.masked_fill(row_T > num_tokens_B1, -math.inf)


def _block_causal(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, num_tokens: int, window_blocks: int) -> Tensor:
    """Each block's queries in turn, against no more keys than they may see."""
    parts = []
    for end in range(num_tokens, q_BHLK.shape[2] + 1, num_tokens):
        own, seen = slice(end - num_tokens, end), slice(max(0, end - window_blocks * num_tokens), end)
        parts.append(attend(q_BHLK[:, :, own], k_BHLK[:, :, seen], v_BHLK[:, :, seen]))
    return torch.cat(parts, dim=2)


def attend(q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, bias: Tensor | None = None) -> Tensor:
    """Dense attention. The fused form has a slow backward pass on CPUs: in bfloat16 the products alone train faster."""
    if q_BHLK.is_cuda or not torch.is_grad_enabled() or not torch.is_autocast_enabled(q_BHLK.device.type):
        return scaled_dot_product_attention(q_BHLK, k_BHTK, v_BHTK, bias)
    logits_BHLT = torch.matmul(q_BHLK * q_BHLK.shape[-1] ** -0.5, k_BHTK.transpose(-1, -2))
    if bias is not None:
        logits_BHLT = logits_BHLT + bias
    return torch.matmul(torch.softmax(logits_BHLT, dim=-1, dtype=torch.bfloat16), v_BHTK)


def _joined(x_GLHK: Tensor, num_samples: int) -> Tensor:
    """[B, H, N * L, K]."""
    by_sample: Tensor = x_GLHK.unflatten(0, (num_samples, -1))
    return by_sample.flatten(1, 2).transpose(1, 2)


def _no_pages(num_segments: int, device: torch.device) -> PageTable:
    zeros_G = torch.zeros(num_segments, dtype=torch.int32, device=device)
    return PageTable(zeros_G[:, None], zeros_G[:, None], zeros_G, zeros_G - 1)


def _no_cache(model: CausalWan, inputs: ForwardInputs) -> PagedCache:
    """One page that nobody writes or reads, of the form that kernels ask for."""
    num_frames, _, height, width = inputs.latents_GFCYX.shape[1:]
    sizes, patch_px = model.config, model.config.patch_px
    num_tokens = num_frames * (height // patch_px) * (width // patch_px)
    shape = (sizes.num_layers, 1, num_tokens, sizes.num_heads, sizes.head_dim)
    page = torch.empty(shape, dtype=model.dtype, device=model.device)
    return PagedCache(page, page)
