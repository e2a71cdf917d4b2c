"""Colour conversion from RGB to the 4:2:0 planes that video encoders take, and the twin of its kernel.

Knows no codec and no container. Source: ITU-R BT.709-6 sections 3 and 4 (8-bit, limited range); planes as in I420.

Shape letters: T frames, C colour channels (R, G, B), H height_px, W width_px, P = H * 3 / 2 rows of the planes.
"""

import torch
from torch import Tensor

from kernels.dispatch import uses_triton
from kernels.numbers import BLACK, BLUE_WEIGHT, CHROMA_SPAN, GREEN_WEIGHT, GREY_CHROMA, RED_WEIGHT, WHITE


def rgb_to_yuv420p(pixels_TCHW: Tensor) -> Tensor:
    """Convert frames to BT.709 limited-range I420.

    Args:
        pixels_TCHW: gamma-encoded RGB, floating point, values in [0, 1]; beyond them the result is undefined.

    Returns:
        uint8 [T, H * 3 / 2, W] on the same device: a frame is H rows of luma, then the U plane and the V plane
        ([H / 2, W / 2] each) one after the other without padding, two of their rows in one row of W.

    Raises:
        ValueError: there are not three channels, or a side is odd.
    """
    _, channels, height_px, width_px = pixels_TCHW.shape
    if channels != 3 or height_px % 2 or width_px % 2:
        raise ValueError(f"frames must be [T, 3, even H, even W], not {list(pixels_TCHW.shape)}")
    if not uses_triton(pixels_TCHW):
        return rgb_to_yuv420p_reference(pixels_TCHW)
    from kernels.yuv.triton import rgb_to_yuv420p_triton  # noqa: PLC0415 - Triton loads only where it runs

    return rgb_to_yuv420p_triton(pixels_TCHW)


def rgb_to_yuv420p_reference(pixels_TCHW: Tensor) -> Tensor:
    """The twin of the kernel, with the argument of ``rgb_to_yuv420p``."""
    num_frames, _, height_px, width_px = pixels_TCHW.shape
    full_TCHW = pixels_TCHW.float()
    half_TCHW = _mean_2x2(full_TCHW)  # chroma is linear in RGB: its mean is that of the mean RGB, at less work
    luma_half = _luma(half_TCHW)
    red_half, blue_half = half_TCHW[:, 0], half_TCHW[:, 2]

    y = BLACK + (WHITE - BLACK) * _luma(full_TCHW)
    u = GREY_CHROMA + CHROMA_SPAN * (blue_half - luma_half) / (2 * (1 - BLUE_WEIGHT))
    v = GREY_CHROMA + CHROMA_SPAN * (red_half - luma_half) / (2 * (1 - RED_WEIGHT))
    planes = [_round(plane).flatten(1) for plane in (y, u, v)]
    return torch.cat(planes, dim=1).view(num_frames, height_px * 3 // 2, width_px)


def _luma(rgb_TCHW: Tensor) -> Tensor:
    red, green, blue = rgb_TCHW.unbind(1)
    return RED_WEIGHT * red + GREEN_WEIGHT * green + BLUE_WEIGHT * blue


def _mean_2x2(x_TCHW: Tensor) -> Tensor:
    top, bottom = x_TCHW[..., 0::2, :], x_TCHW[..., 1::2, :]
    return (top[..., 0::2] + top[..., 1::2] + bottom[..., 0::2] + bottom[..., 1::2]) / 4


def _round(level: Tensor) -> Tensor:
    """Round half up; the cast alone cuts the fraction off."""
    return (level + 0.5).to(torch.uint8)
