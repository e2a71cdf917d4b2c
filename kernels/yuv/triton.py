"""Triton kernel of the colour conversion; its twin is ``kernels.yuv.formula.rgb_to_yuv420p_reference``.

One program turns a strip of two pixel rows into luma and chroma, so each pixel is read once. The arithmetic is the
formula's, in its order, without fused multiply-adds and with a correctly rounded division: the same bytes come out.

Shape letters: T frames, C colour channels, H height_px, W width_px, P rows of the planes, N pixels of a strip's row,
M chroma samples of a strip (N / 2).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.numbers import BLACK, BLUE_WEIGHT, CHROMA_SPAN, GREEN_WEIGHT, GREY_CHROMA, RED_WEIGHT, WHITE

MAX_STRIP = 512
"""Chroma samples of a strip at most."""

_RED = tl.constexpr(RED_WEIGHT)
_GREEN = tl.constexpr(GREEN_WEIGHT)
_BLUE = tl.constexpr(BLUE_WEIGHT)
_BLACK = tl.constexpr(BLACK)
_LUMA_SPAN = tl.constexpr(WHITE - BLACK)
_GREY = tl.constexpr(GREY_CHROMA)
_CHROMA_SPAN = tl.constexpr(CHROMA_SPAN)
_BLUE_RANGE = tl.constexpr(2 * (1 - BLUE_WEIGHT))
_RED_RANGE = tl.constexpr(2 * (1 - RED_WEIGHT))


@triton.jit
def _luma(red, green, blue):
    return _RED * red + _GREEN * green + _BLUE * blue


@triton.jit
def _store_luma(out_ptr, red_N, green_N, blue_N, inside_N):
    level_N = _BLACK + _LUMA_SPAN * _luma(red_N, green_N, blue_N)
    tl.store(out_ptr, (level_N + 0.5).to(tl.int32).to(tl.uint8), mask=inside_N)


@triton.jit
def _store_chroma(out_ptr, colour_M, luma_M, RANGE: tl.constexpr, inside_M):
    span_M = _CHROMA_SPAN * (colour_M - luma_M)
    level_M = _GREY + tl.div_rn(span_M, tl.full(span_M.shape, RANGE, tl.float32))
    tl.store(out_ptr, (level_M + 0.5).to(tl.int32).to(tl.uint8), mask=inside_M)


@triton.jit
def _mean_2x2(top_N, bottom_N, STRIP: tl.constexpr):
    top_left_M, top_right_M = tl.split(tl.reshape(top_N, (STRIP, 2)))
    bottom_left_M, bottom_right_M = tl.split(tl.reshape(bottom_N, (STRIP, 2)))
    return (top_left_M + top_right_M + bottom_left_M + bottom_right_M) * 0.25


@triton.jit
def yuv_kernel(pixels_ptr, out_ptr, frame_stride, channel_stride, row_stride, H, W, STRIP: tl.constexpr):
    """Convert one strip. The grid is (strips of a row, H / 2, T)."""
    strip, row_pair, frame = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    column_N = strip * 2 * STRIP + tl.arange(0, 2 * STRIP)
    sample_M = strip * STRIP + tl.arange(0, STRIP)
    inside_N, inside_M = column_N < W, sample_M < W // 2

    red_ptr = pixels_ptr + frame * frame_stride + 2 * row_pair * row_stride + column_N
    green_ptr = red_ptr + channel_stride
    blue_ptr = green_ptr + channel_stride
    red_top_N = tl.load(red_ptr, mask=inside_N, other=0.0).to(tl.float32)
    green_top_N = tl.load(green_ptr, mask=inside_N, other=0.0).to(tl.float32)
    blue_top_N = tl.load(blue_ptr, mask=inside_N, other=0.0).to(tl.float32)
    red_bottom_N = tl.load(red_ptr + row_stride, mask=inside_N, other=0.0).to(tl.float32)
    green_bottom_N = tl.load(green_ptr + row_stride, mask=inside_N, other=0.0).to(tl.float32)
    blue_bottom_N = tl.load(blue_ptr + row_stride, mask=inside_N, other=0.0).to(tl.float32)

    y_ptr = out_ptr + frame * (H * W + H * W // 2) + 2 * row_pair * W
    _store_luma(y_ptr + column_N, red_top_N, green_top_N, blue_top_N, inside_N)
    _store_luma(y_ptr + W + column_N, red_bottom_N, green_bottom_N, blue_bottom_N, inside_N)

    red_M = _mean_2x2(red_top_N, red_bottom_N, STRIP)
    green_M = _mean_2x2(green_top_N, green_bottom_N, STRIP)
    blue_M = _mean_2x2(blue_top_N, blue_bottom_N, STRIP)
    luma_M = _luma(red_M, green_M, blue_M)
    u_ptr = out_ptr + frame * (H * W + H * W // 2) + H * W + row_pair * (W // 2)
    _store_chroma(u_ptr + sample_M, blue_M, luma_M, _BLUE_RANGE, inside_M)
    _store_chroma(u_ptr + (H // 2) * (W // 2) + sample_M, red_M, luma_M, _RED_RANGE, inside_M)


def rgb_to_yuv420p_triton(pixels_TCHW: Tensor) -> Tensor:
    """See ``kernels.yuv.formula.rgb_to_yuv420p``; the shape has been checked there."""
    num_frames, _, height_px, width_px = pixels_TCHW.shape
    pixels_TCHW = pixels_TCHW if pixels_TCHW.stride(-1) == 1 else pixels_TCHW.contiguous()
    planes_TPW = pixels_TCHW.new_empty((num_frames, height_px * 3 // 2, width_px), dtype=torch.uint8)
    strip = min(triton.next_power_of_2(width_px // 2), MAX_STRIP)
    if planes_TPW.numel():
        yuv_kernel[(triton.cdiv(width_px // 2, strip), height_px // 2, num_frames)](
            pixels_TCHW,
            planes_TPW,
            *pixels_TCHW.stride()[:3],
            height_px,
            width_px,
            STRIP=strip,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return planes_TPW
