"""Triton kernels of the memory-bound steps between matrix products; their formulas are in ``formula``.

One program works on one token, so a row is read once, reduced in registers and written once. Numbers are float32
inside and are rounded to the tensors' type where the formula rounds. Widths need not be powers of two: blocks are the
next power, lanes beyond the width are masked.

Sizes that change while a server runs (segments, pages) are never kernel arguments: they are the grid or lie in tensors,
so no value of them compiles a kernel anew.

Letters: G segments, L tokens, E model width, H heads, K channels of a head, R rotary pairs of a head (K / 2),
P pages of the pool.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fp8.formula import PageScales
from kernels.fp8.triton import quantise
from kernels.numbers import FP8

LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
"""Multiplications and additions may fuse; said aloud because Triton's default changes in version 3.10."""


@triton.jit
def _standardize(x_E, inside_E, eps, E: tl.constexpr):
    """Subtract the mean and divide by the standard deviation; lanes outside stay 0."""
    centred_E = tl.where(inside_E, x_E - tl.sum(x_E, 0) / E, 0.0)
    return centred_E * tl.rsqrt(tl.sum(centred_E * centred_E, 0) / E + eps)


@triton.jit
def norm_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    shift_ptr,
    scale_ptr,
    sum_ptr,
    out_ptr,
    gate_stride,
    shift_stride,
    scale_stride,
    eps,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """LayerNorm of x, or of x plus a residual y; then modulation by segment, or the norm's own weight and bias.

    The grid is (L, G). ``sum_ptr`` takes the new x where there is a residual; a stride leads from one segment's row of
    a modulation to the next.
    """
    segment = tl.program_id(1)
    row = (segment * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    channel_E = tl.arange(0, BLOCK_E)
    inside_E = channel_E < E
    at_E = row * E + channel_E
    kind = x_ptr.dtype.element_ty

    x_E = tl.load(x_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    if RESIDUAL:
        y_E = tl.load(y_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
        if GATED:
            y_E *= tl.load(gate_ptr + segment * gate_stride + channel_E, mask=inside_E, other=0.0).to(tl.float32)
        rounded_E = (x_E + y_E).to(kind)
        tl.store(sum_ptr + at_E, rounded_E, mask=inside_E)
        x_E = rounded_E.to(tl.float32)

    shift_E = tl.load(shift_ptr + segment * shift_stride + channel_E, mask=inside_E, other=0.0).to(tl.float32)
    scale_E = tl.load(scale_ptr + segment * scale_stride + channel_E, mask=inside_E, other=0.0).to(tl.float32)
    normed_E = _standardize(x_E, inside_E, eps, E)
    if not AFFINE:
        normed_E = normed_E.to(kind).to(tl.float32)
        scale_E = (1.0 + scale_E).to(kind).to(tl.float32)
    tl.store(out_ptr + at_E, (shift_E + normed_E * scale_E).to(kind), mask=inside_E)


@triton.jit
def gated_residual_kernel(x_ptr, y_ptr, gate_ptr, out_ptr, gate_stride, E: tl.constexpr, BLOCK_E: tl.constexpr):
    """Add a gated residual. The grid is (L, G); the stride leads from one segment's gate to the next."""
    segment = tl.program_id(1)
    row = (segment * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    channel_E = tl.arange(0, BLOCK_E)
    inside_E = channel_E < E
    at_E = row * E + channel_E
    x_E = tl.load(x_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    y_E = tl.load(y_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    gate_E = tl.load(gate_ptr + segment * gate_stride + channel_E, mask=inside_E, other=0.0).to(tl.float32)
    tl.store(out_ptr + at_E, (x_E + y_E * gate_E).to(x_ptr.dtype.element_ty), mask=inside_E)


@triton.jit
def rms_norm_kernel(x_ptr, weight_ptr, out_ptr, eps, E: tl.constexpr, BLOCK_E: tl.constexpr):
    """RMS norm of one row. The grid is (rows,)."""
    channel_E = tl.arange(0, BLOCK_E)
    inside_E = channel_E < E
    at_E = tl.program_id(0).to(tl.int64) * E + channel_E
    kind = x_ptr.dtype.element_ty
    x_E = tl.load(x_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    weight_E = tl.load(weight_ptr + channel_E, mask=inside_E, other=0.0).to(tl.float32)
    normed_E = (x_E * tl.rsqrt(tl.sum(x_E * x_E, 0) / E + eps)).to(kind).to(tl.float32)
    tl.store(out_ptr + at_E, (normed_E * weight_E).to(kind), mask=inside_E)


@triton.jit
def norm_rotate_kernel(
    x_ptr,
    weight_ptr,
    rotations_ptr,
    out_ptr,
    v_ptr,
    k_pages_ptr,
    v_pages_ptr,
    k_scales_ptr,
    v_scales_ptr,
    page_of_segment_ptr,
    page_stride,
    scale_page_stride,
    scale_head_stride,
    eps,
    H: tl.constexpr,
    K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STORE: tl.constexpr,
):
    """RMS norm over all heads, rotary positions and, with STORE, a copy of keys and values into the segment's page.

    The grid is (L, G). ``rotations_ptr`` holds cosine and sine in turn, float32. A segment without a page has -1. Pages
    in 8 bits have scales for each token and head, which are written too; other pages have None for them.
    """
    token, segment = tl.program_id(0), tl.program_id(1)
    row = (segment * tl.num_programs(0) + token).to(tl.int64)
    head_H1 = tl.arange(0, BLOCK_H)[:, None]
    channel_K = tl.arange(0, BLOCK_K)
    inside_HK = (head_H1 < H) & (channel_K < K)[None, :]
    at_HK = head_H1 * K + channel_K[None, :]
    kind = x_ptr.dtype.element_ty

    x_HK = tl.load(x_ptr + row * (H * K) + at_HK, mask=inside_HK, other=0.0).to(tl.float32)
    weight_HK = tl.load(weight_ptr + at_HK, mask=inside_HK, other=0.0).to(tl.float32)
    inverse_rms = tl.rsqrt(tl.sum(tl.sum(x_HK * x_HK, 1), 0) / (H * K) + eps)
    normed_HK = (x_HK * inverse_rms).to(kind).to(tl.float32)
    scaled_HK = (normed_HK * weight_HK).to(kind).to(tl.float32)

    pair_R = tl.arange(0, BLOCK_K // 2)
    rotation_ptr = rotations_ptr + row * K + 2 * pair_R  # apart, so that a pair's lanes never leave their thread
    cos_R = tl.load(rotation_ptr, mask=pair_R < K // 2, other=0.0)
    sin_R = tl.load(rotation_ptr + 1, mask=pair_R < K // 2, other=0.0)
    re_HR, im_HR = tl.split(tl.reshape(scaled_HK, (BLOCK_H, BLOCK_K // 2, 2)))
    turned_re_HR = re_HR * cos_R[None, :] - im_HR * sin_R[None, :]
    turned_im_HR = re_HR * sin_R[None, :] + im_HR * cos_R[None, :]
    turned_HK = tl.reshape(tl.join(turned_re_HR, turned_im_HR), (BLOCK_H, BLOCK_K)).to(kind)
    tl.store(out_ptr + row * (H * K) + at_HK, turned_HK, mask=inside_HK)

    if STORE:
        page = tl.load(page_of_segment_ptr + segment).to(tl.int64)
        if page >= 0:
            v_HK = tl.load(v_ptr + row * (H * K) + at_HK, mask=inside_HK, other=0.0)
            k_HK = turned_HK
            if k_scales_ptr is not None:
                k_HK, k_scale_H = quantise(turned_HK.to(tl.float32))
                v_HK, v_scale_H = quantise(v_HK.to(tl.float32))
                head_H = tl.arange(0, BLOCK_H)
                scale_at_H = page * scale_page_stride + head_H * scale_head_stride + token
                tl.store(k_scales_ptr + scale_at_H, k_scale_H, mask=head_H < H)
                tl.store(v_scales_ptr + scale_at_H, v_scale_H, mask=head_H < H)
            start = page * page_stride + token * (H * K)
            tl.store(k_pages_ptr + start + at_HK, k_HK, mask=inside_HK)
            tl.store(v_pages_ptr + start + at_HK, v_HK, mask=inside_HK)


def modulated_norm(x_GLE: Tensor, shift_G1E: Tensor, scale_G1E: Tensor, eps: float) -> Tensor:
    """See ``kernels.elementwise.formula.modulated_norm``."""
    return _norm(x_GLE, None, None, shift_G1E, scale_G1E, eps)[1]


def residual_modulated_norm(
    x_GLE: Tensor, y_GLE: Tensor, shift_G1E: Tensor, scale_G1E: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See ``kernels.elementwise.formula.residual_modulated_norm``."""
    return _norm(x_GLE, y_GLE, None, shift_G1E, scale_G1E, eps)


def gated_residual_norm(
    x_GLE: Tensor, y_GLE: Tensor, gate_G1E: Tensor, weight_E: Tensor, bias_E: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See ``kernels.elementwise.formula.gated_residual_norm``."""
    return _norm(x_GLE, y_GLE, gate_G1E, bias_E, weight_E, eps)


def gated_residual(x_GLE: Tensor, y_GLE: Tensor, gate_G1E: Tensor) -> Tensor:
    """See ``kernels.elementwise.formula.gated_residual``."""
    x_GLE, y_GLE = x_GLE.contiguous(), y_GLE.contiguous()
    num_segments, num_tokens, width = x_GLE.shape
    out_GLE = torch.empty_like(x_GLE)
    if out_GLE.numel():
        gated_residual_kernel[(num_tokens, num_segments)](
            *(x_GLE, y_GLE, gate_G1E, out_GLE),
            _segment_stride(gate_G1E),
            E=width,
            BLOCK_E=triton.next_power_of_2(width),
            **LAUNCH,
        )
    return out_GLE


def rms_norm(x: Tensor, weight_E: Tensor, eps: float) -> Tensor:
    """See ``kernels.elementwise.formula.rms_norm``."""
    x = x.contiguous()
    width = x.shape[-1]
    out = torch.empty_like(x)
    if out.numel():
        block = triton.next_power_of_2(width)
        rms_norm_kernel[(x.numel() // width,)](x, weight_E, out, eps, E=width, BLOCK_E=block, **LAUNCH)
    return out


def norm_rotate(x_GLE: Tensor, weight_E: Tensor, rotations_GLR: Tensor, num_heads: int, eps: float) -> Tensor:
    """See ``kernels.elementwise.formula.norm_rotate``."""
    return _norm_rotate(x_GLE, weight_E, rotations_GLR, num_heads, eps, None)


def norm_rotate_store(
    k_GLE: Tensor,
    v_GLE: Tensor,
    weight_E: Tensor,
    rotations_GLR: Tensor,
    num_heads: int,
    eps: float,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    write_pages_G: Tensor,
    scales: PageScales | None = None,
) -> tuple[Tensor, Tensor]:
    """See ``kernels.elementwise.formula.norm_rotate_store``. Both pools have contiguous pages and equal strides."""
    v_GLE = v_GLE.contiguous()
    num_tokens, width = k_GLE.shape[1:]
    for pages_PLHK in (k_pages_PLHK, v_pages_PLHK):
        assert pages_PLHK.stride() == (k_pages_PLHK.stride(0), width, width // num_heads, 1), "a page is not packed"
        assert num_tokens <= pages_PLHK.shape[1], f"{num_tokens} tokens in a page of {pages_PLHK.shape[1]}"
        assert pages_PLHK.dtype == (k_GLE.dtype if scales is None else FP8)
    assert write_pages_G.dtype == torch.int32 and len(write_pages_G) == len(k_GLE)
    pool = (v_GLE, k_pages_PLHK, v_pages_PLHK, write_pages_G)
    k_GLHK = _norm_rotate(k_GLE, weight_E, rotations_GLR, num_heads, eps, pool, scales)
    return k_GLHK, v_GLE.unflatten(-1, (num_heads, -1))


def _norm(
    x_GLE: Tensor, y_GLE: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return x plus the residual, and its norm. A shift of one axis is a bias, and its scale a weight."""
    residual, gated, affine = y_GLE is not None, gate is not None, shift.ndim == 1
    x_GLE = x_GLE.contiguous()
    y_GLE = x_GLE if y_GLE is None else y_GLE.contiguous()
    gate = shift if gate is None else gate
    num_segments, num_tokens, width = x_GLE.shape
    sum_GLE = torch.empty_like(x_GLE) if residual else x_GLE
    out_GLE = torch.empty_like(x_GLE)
    if out_GLE.numel():
        norm_kernel[(num_tokens, num_segments)](
            x_GLE,
            y_GLE,
            *(gate, shift, scale),
            *(sum_GLE, out_GLE),
            *(_segment_stride(gate), _segment_stride(shift), _segment_stride(scale)),
            eps,
            E=width,
            BLOCK_E=triton.next_power_of_2(width),
            RESIDUAL=residual,
            GATED=gated,
            AFFINE=affine,
            **LAUNCH,
        )
    return sum_GLE, out_GLE


def _norm_rotate(
    x_GLE: Tensor,
    weight_E: Tensor,
    rotations_GLR: Tensor,
    num_heads: int,
    eps: float,
    pool: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    scales: PageScales | None = None,
) -> Tensor:
    """Norm and rotate; with a pool (values, both pages, page of each segment) also write the segments' pages."""
    x_GLE = x_GLE.contiguous()
    num_segments, num_tokens, width = x_GLE.shape
    head_dim = width // num_heads
    out_GLHK = torch.empty_like(x_GLE).view(num_segments, num_tokens, num_heads, head_dim)
    v_GLE, k_pages_PLHK, v_pages_PLHK, pages_G = pool or (x_GLE, x_GLE, x_GLE, x_GLE)
    if out_GLHK.numel():
        norm_rotate_kernel[(num_tokens, num_segments)](
            x_GLE,
            weight_E,
            torch.view_as_real(rotations_GLR.contiguous()),
            out_GLHK,
            *(v_GLE, k_pages_PLHK, v_pages_PLHK),
            *((None, None) if scales is None else (scales.keys_PHL, scales.values_PHL)),
            pages_G,
            k_pages_PLHK.stride(0),
            *((0, 0) if scales is None else scales.strides),
            eps,
            H=num_heads,
            K=head_dim,
            BLOCK_H=triton.next_power_of_2(num_heads),
            BLOCK_K=triton.next_power_of_2(head_dim),
            STORE=pool is not None,
            **LAUNCH,
        )
    return out_GLHK


def _segment_stride(rows: Tensor) -> int:
    """Elements from one segment's row to the next; 0 where all segments share one."""
    assert rows.stride(-1) == 1, f"rows of stride {rows.stride(-1)}"
    return 0 if rows.ndim == 1 else rows.stride(0)
