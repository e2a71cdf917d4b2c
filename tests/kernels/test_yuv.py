"""The colour twin against an independent float64 formula and known colours. Its way through a decoder: tests/media.

Shape letters as in ``kernels.yuv.formula``.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.yuv.formula import rgb_to_yuv420p

BT709 = np.array(
    [
        [0.2126, 0.7152, 0.0722],
        [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.9278 / 1.8556],
        [0.7874 / 1.5748, -0.7152 / 1.5748, -0.0722 / 1.5748],
    ]
)
KNOWN = {
    "black": ((0, 0, 0), (16, 128, 128)),
    "white": ((1, 1, 1), (235, 128, 128)),
    "grey": ((0.5, 0.5, 0.5), (126, 128, 128)),
    "red": ((1, 0, 0), (63, 102, 240)),
    "green": ((0, 1, 0), (173, 42, 26)),
    "blue": ((0, 0, 1), (32, 240, 118)),
    "cyan": ((0, 1, 1), (188, 154, 16)),
    "yellow": ((1, 1, 0), (219, 16, 138)),
}


def flat(colour: tuple[float, ...]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 4, 4)


def split_planes(yuv_TPW: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_frames, rows, width_px = yuv_TPW.shape
    height_px = rows * 2 // 3
    samples = yuv_TPW.reshape(num_frames, -1)
    luma, quarter = height_px * width_px, height_px * width_px // 4
    half = (num_frames, height_px // 2, width_px // 2)
    return (
        samples[:, :luma].reshape(num_frames, height_px, width_px),
        samples[:, luma : luma + quarter].reshape(half),
        samples[:, luma + quarter :].reshape(half),
    )


def exact_levels(pixels_TCHW: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unrounded planes in float64, chroma averaged after the matrix (the kernel averages before)."""
    full = np.einsum("kc,tchw->tkhw", BT709, pixels_TCHW.double().numpy())
    num_frames, _, height_px, width_px = full.shape
    chroma = full[:, 1:].reshape(num_frames, 2, height_px // 2, 2, width_px // 2, 2).mean(axis=(3, 5))
    return 16 + 219 * full[:, 0], 128 + 224 * chroma[:, 0], 128 + 224 * chroma[:, 1]


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 6, 10), (12, 128, 128), (2, 16, 832)], ids=str)
def test_matches_float64_except_at_ties(shape: tuple[int, int, int]) -> None:
    num_frames, height_px, width_px = shape
    pixels_TCHW = torch.rand(num_frames, 3, height_px, width_px, generator=torch.Generator().manual_seed(1))
    yuv_TPW = rgb_to_yuv420p(pixels_TCHW)
    assert yuv_TPW.shape == (num_frames, height_px * 3 // 2, width_px)
    assert yuv_TPW.dtype == torch.uint8
    for plane, exact in zip(split_planes(yuv_TPW.numpy()), exact_levels(pixels_TCHW), strict=True):
        assert np.abs(plane - exact).max() <= 0.5 + 1e-4  # 1e-4: float32 may fall on the other side of a tie


@pytest.mark.parametrize(("colour", "levels"), KNOWN.values(), ids=KNOWN)
def test_known_colours(colour: tuple[float, ...], levels: tuple[int, int, int]) -> None:
    planes = split_planes(rgb_to_yuv420p(flat(colour)).numpy())
    assert tuple(set(plane.ravel().tolist()) for plane in planes) == tuple({level} for level in levels)


@pytest.mark.parametrize("level", [16, 17, 100, 126, 233, 234])
def test_luma_rounds_to_the_nearest_level(level: int) -> None:
    def luma_of_grey(exact_level: float) -> int:
        return int(rgb_to_yuv420p(flat(((exact_level - 16) / 219,) * 3))[0, 0, 0])

    assert luma_of_grey(level + 0.49) == level
    assert luma_of_grey(level + 0.51) == level + 1


def test_chroma_is_the_mean_of_four_pixels_rounded_once() -> None:
    one_level = 1 / 112  # of blue alone: 224 * (1 - 0.0722) / 1.8556
    pixels_TCHW = torch.zeros(1, 3, 2, 2)
    pixels_TCHW[0, 2] = torch.tensor([[0.4, 0.4], [0.4, 1.2]]) * one_level  # mean 0.6; each rounded first: mean 0.25
    assert split_planes(rgb_to_yuv420p(pixels_TCHW).numpy())[1].item() == 129


def test_each_pixel_lands_in_its_place() -> None:
    pixels_TCHW = torch.zeros(2, 3, 6, 8)
    pixels_TCHW[1, :, 3, 5] = 1  # white: luma only
    pixels_TCHW[0, 2, 2:4, 6:8] = 1  # blue
    pixels_TCHW[0, 0, 4:6, 0:2] = 1  # red
    y, u, v = split_planes(rgb_to_yuv420p(pixels_TCHW).numpy())
    assert np.argwhere(y[1] == 235).tolist() == [[3, 5]]
    assert np.argwhere(u == 240).tolist() == [[0, 1, 3]]
    assert np.argwhere(v == 240).tolist() == [[0, 2, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_float_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    pixels_TCHW = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert torch.equal(rgb_to_yuv420p(pixels_TCHW), rgb_to_yuv420p(pixels_TCHW.float()))


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 7, 8), (1, 3, 8, 7)], ids=str)
def test_wrong_shape_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        rgb_to_yuv420p(torch.zeros(shape))


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    pixels_TCHW = torch.rand(12, 3, 480, 832, generator=torch.Generator().manual_seed(3))
    on_cpu, on_cuda = rgb_to_yuv420p(pixels_TCHW), rgb_to_yuv420p(pixels_TCHW.cuda()).cpu()
    differ = (on_cpu.int() - on_cuda.int()).abs()
    assert differ.max() <= 1
    assert differ.float().mean() < 1e-4  # only ties, which fused multiply-adds may turn
