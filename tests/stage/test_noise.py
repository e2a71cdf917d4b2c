"""Keyed noise: Philox against its published answers, independence of keys, and the shape of the normals."""

import pytest
import torch
from torch import Tensor

from engine.stage.noise import KeyedNoise, philox

CPU = torch.device("cpu")
ONES = 0xFFFFFFFF
SHAPE = (3, 16, 8, 12)
noise = KeyedNoise(CPU)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    words = philox([torch.tensor([word], dtype=torch.int64) for word in counter], key)
    assert [hex(int(word)) for word in words] == [hex(word) for word in expected]


def test_same_key_same_noise() -> None:
    first = noise(7, 3, 2, SHAPE)
    noise(8, 1, 0, SHAPE)
    assert torch.equal(first, KeyedNoise(CPU)(7, 3, 2, SHAPE))
    assert first.shape == SHAPE
    assert first.dtype == torch.float32


@pytest.mark.parametrize(
    ("seed", "block", "stage"),
    [
        (8, 3, 2),
        (7 + 2**32, 3, 2),
        (7 + 2**63, 3, 2),
        (7, 4, 2),
        (7, 3 + 2**32, 2),
        (7, 3, 1),
        (7, 2, 3),
        (3, 7, 2),
    ],
)
def test_any_change_of_key_gives_unrelated_noise(seed: int, block: int, stage: int) -> None:
    shape = (40_000,)
    assert abs(correlation(noise(7, 3, 2, shape), noise(seed, block, stage, shape))) < 0.03


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("block", [0, 2**31, 2**32 - 1, 2**40])
def test_huge_seeds_and_blocks(seed: int, block: int) -> None:
    drawn = noise(seed, block, 3, (4096,))
    assert bool(drawn.isfinite().all())
    assert abs(float(drawn.mean())) < 0.1
    assert abs(float(drawn.std()) - 1) < 0.06


def test_moments_are_those_of_a_normal() -> None:
    drawn = noise(42, 0, 0, (100_000,)).double()
    standard = (drawn - drawn.mean()) / drawn.std()
    assert abs(float(drawn.mean())) < 0.015
    assert abs(float(drawn.std()) - 1) < 0.01
    assert abs(float((standard**3).mean())) < 0.04
    assert abs(float((standard**4).mean()) - 3) < 0.08
    for lag in (1, 2, 3, 4):
        assert abs(correlation(drawn[:-lag], drawn[lag:])) < 0.015


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 96, 1001])
def test_fewer_numbers_are_the_first_of_more(count: int) -> None:
    assert torch.equal(noise(1, 2, 3, (count,)), noise(1, 2, 3, (5000,))[:count])


def test_shape_only_cuts_the_row_of_numbers() -> None:
    assert torch.equal(noise(1, 2, 3, SHAPE)[:1], noise(1, 2, 3, (1, *SHAPE[1:])))
    assert torch.equal(noise(1, 2, 3, SHAPE).flatten(), noise(1, 2, 3, (3 * 16 * 8 * 12,)))
