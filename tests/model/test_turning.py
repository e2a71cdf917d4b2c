"""Keys of a page that is turned by d latent frames are the keys of a block that lies d latent frames later."""

import pytest
import torch
from torch import Tensor

from engine.model.rope import pairs_by_axis, rotations
from engine.model.segments import PagedCache
from engine.model.turning import turn_page
from kernels.elementwise.formula import rotate
from kernels.fp8.formula import load_page, store_page
from kernels.numbers import FP8

NUM_LAYERS, NUM_PAGES, HEADS, WIDTH = 2, 4, 3, 32
GRID = (3, 2, 5)
"""Latent frames, rows and columns of a page."""
TOKENS = 30
SOURCE, TARGET = 2, 0
ROUNDING = 0.028
"""Relative error that e4m3 makes of a page."""


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def keys_at(block: int) -> Tensor:
    """The same keys [N, L, H, K] at the positions of a block."""
    plain_NLHK = random(NUM_LAYERS, TOKENS, HEADS, WIDTH)
    return rotate(plain_NLHK, rotations(torch.tensor([block * GRID[0]]), GRID, WIDTH))


def pool(dtype: torch.dtype) -> PagedCache:
    """Pages of NaN but for the source, which holds block 4."""
    keys, values = (torch.full((NUM_LAYERS, NUM_PAGES, TOKENS, HEADS, WIDTH), torch.nan).to(dtype) for _ in range(2))
    keys[:, SOURCE], values[:, SOURCE] = keys_at(4).to(dtype), random(*values[:, SOURCE].shape).to(dtype)
    return PagedCache(keys, values)


@pytest.mark.parametrize("blocks", [1, 0, -3, 500, 10**5])
def test_a_turned_key_is_the_key_of_the_later_frame(blocks: int) -> None:
    cache = pool(torch.float32)
    before = [x.clone() for x in cache.tensors]
    turn_page(cache, SOURCE, TARGET, blocks * GRID[0])
    torch.testing.assert_close(cache.keys_NPLHK[:, TARGET], keys_at(4 + blocks), rtol=0, atol=1e-5)
    assert torch.equal(cache.values_NPLHK[:, TARGET], cache.values_NPLHK[:, SOURCE])
    for now, then in zip(cache.tensors, before, strict=True):
        torch.testing.assert_close(now[:, 1:], then[:, 1:], rtol=0, atol=0, equal_nan=True)


def test_an_offset_need_not_be_whole_blocks() -> None:
    """By one latent frame: what the second frame's tokens are then is what the third's are of plain keys."""
    cache = pool(torch.float32)
    turn_page(cache, SOURCE, TARGET, 1)
    by_frame = rotate(
        random(NUM_LAYERS, TOKENS, HEADS, WIDTH),
        rotations(torch.tensor([13]), (1, *GRID[1:]), WIDTH).repeat(1, GRID[0], 1),
    )
    first = slice(TOKENS // GRID[0])  # latent frame 12 of the source
    torch.testing.assert_close(cache.keys_NPLHK[:, TARGET, first], by_frame[:, first], rtol=0, atol=1e-5)


def test_only_pairs_of_time_turn() -> None:
    cache = pool(torch.float32)
    turn_page(cache, SOURCE, TARGET, 11)
    channels = 2 * pairs_by_axis(WIDTH)[0]
    source, target = (cache.keys_NPLHK[:, page] for page in (SOURCE, TARGET))
    assert torch.equal(source[..., channels:], target[..., channels:])
    assert not torch.isclose(source[..., :channels], target[..., :channels]).all(dim=(0, 1, 2)).any()


def test_a_page_of_half_types_is_rounded_once() -> None:
    cache = pool(torch.bfloat16)
    turn_page(cache, SOURCE, TARGET, 6)
    exact = pool(torch.float32)
    exact.keys_NPLHK.copy_(cache.keys_NPLHK)
    turn_page(exact, SOURCE, TARGET, 6)
    assert torch.equal(cache.keys_NPLHK[:, TARGET], exact.keys_NPLHK[:, TARGET].bfloat16())


def test_a_page_in_8_bits_stays_within_its_rounding() -> None:
    plain = pool(torch.float32)
    shape = (NUM_LAYERS, NUM_PAGES, HEADS, TOKENS)
    held = PagedCache(
        *(torch.zeros_like(plain.keys_NPLHK).to(FP8) for _ in range(2)), *torch.full((2, *shape), torch.nan)
    )
    sides = ((plain.keys_NPLHK, held.keys_NPLHK, held.key_scales_NPHL),)
    sides += ((plain.values_NPLHK, held.values_NPLHK, held.value_scales_NPHL),)
    for exact, pages, scales in sides:
        assert scales is not None
        for layer in range(NUM_LAYERS):
            store_page(exact[layer, SOURCE], pages[layer, SOURCE], scales[layer, SOURCE])
    turn_page(held, SOURCE, TARGET, 3)
    scales = held.key_scales_NPHL
    assert scales is not None and held.value_scales_NPHL is not None
    meant = torch.stack(
        [load_page(held.keys_NPLHK[n, TARGET], scales[n, TARGET], torch.float32) for n in range(NUM_LAYERS)]
    )
    expected = keys_at(5)
    assert (meant - expected).norm() <= 2**0.5 * ROUNDING * expected.norm(), "rounded twice: errors add as squares"
    codes = held.values_NPLHK.view(torch.uint8)
    assert torch.equal(codes[:, TARGET], codes[:, SOURCE])
    assert torch.equal(held.value_scales_NPHL[:, TARGET], held.value_scales_NPHL[:, SOURCE])


def test_a_page_is_not_turned_in_place() -> None:
    with pytest.raises(ValueError, match="page 2 would be turned in place"):
        turn_page(pool(torch.float32), SOURCE, SOURCE, 3)
