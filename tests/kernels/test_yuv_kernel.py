"""The colour kernel gives the bytes of its twin, in Triton's interpreter or on a CUDA device.

What the bytes must be is tested in ``test_yuv``. Shape letters as in ``kernels.yuv.formula``.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.dispatch import uses_triton
from kernels.yuv.formula import rgb_to_yuv420p, rgb_to_yuv420p_reference

pytestmark = pytest.mark.slow

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
SHAPES = [(1, 2, 2), (3, 6, 10), (2, 4, 1030), (1, 16, 832), (2, 2, 2050)]
"""Frames, height, width. The widest take two and three strips of a row."""
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture
def convert(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    """Convert through the kernel."""
    return _convert if ON_GPU else lambda pixels: request.getfixturevalue("interpreted")(_convert, pixels)


def _convert(pixels_TCHW: Tensor) -> Tensor:
    pixels_TCHW = pixels_TCHW.to(DEVICE)
    assert uses_triton(pixels_TCHW)
    return rgb_to_yuv420p(pixels_TCHW).cpu()


def random_pixels(num_frames: int, height_px: int, width_px: int) -> Tensor:
    """A third of the values at the ends of the range."""
    pixels_TCHW = torch.rand(num_frames, 3, height_px, width_px, generator=torch.Generator().manual_seed(5))
    return (pixels_TCHW * 1.5 - 0.25).clamp(0, 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_same_bytes_as_the_twin(
    convert: Callable[[Tensor], Tensor], shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    pixels_TCHW = random_pixels(*shape).to(dtype)
    assert torch.equal(convert(pixels_TCHW), rgb_to_yuv420p_reference(pixels_TCHW))


def test_strided_pixels_between_nans(convert: Callable[[Tensor], Tensor]) -> None:
    pixels_TCHW = random_pixels(2, 6, 10)
    room_CTHW = torch.full((4, 4, 8, 14), torch.nan)
    room_CTHW[:3, 1:3, :6, 2:12] = pixels_TCHW.transpose(0, 1)
    strided_TCHW = room_CTHW[:3, 1:3, :6, 2:12].transpose(0, 1)
    assert torch.equal(convert(strided_TCHW), rgb_to_yuv420p_reference(pixels_TCHW))


def test_pixels_with_channels_last(convert: Callable[[Tensor], Tensor]) -> None:
    pixels_TCHW = random_pixels(2, 6, 10)
    channels_last = pixels_TCHW.to(memory_format=torch.channels_last)
    assert torch.equal(convert(channels_last), rgb_to_yuv420p_reference(pixels_TCHW))


def test_no_frames_give_no_planes(convert: Callable[[Tensor], Tensor]) -> None:
    assert convert(torch.empty(0, 3, 4, 6)).shape == (0, 6, 6)
