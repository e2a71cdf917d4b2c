"""The page pool and the pages of a video: counted, never moved, void when free."""

import pytest
import torch

from engine.config import RolloutConfig
from engine.law.window import attended_blocks
from engine.stage.pages import PagePool, VideoPages, page_bytes
from kernels.numbers import FP8


def make_pool(num_pages: int, *, poison: bool = False, dtype: torch.dtype = torch.float32) -> PagePool:
    return PagePool(
        num_pages=num_pages,
        num_layers=2,
        page_tokens=5,
        num_heads=3,
        head_dim=4,
        dtype=dtype,
        device=torch.device("cpu"),
        poison=poison,
    )


def pages_seen(pages: VideoPages, block: int) -> tuple[int, ...]:
    return tuple(one.page for one in pages.attended(block))


def windowed(window_blocks: int, sink_blocks: int) -> RolloutConfig:
    return RolloutConfig(window_latent_frames=3 * window_blocks, sink_latent_frames=3 * sink_blocks)


def test_every_page_is_handed_out_once() -> None:
    pool = make_pool(4)
    assert pool.num_used == 0
    assert {pool.take() for _ in range(4)} == {0, 1, 2, 3}
    assert pool.num_used == 4
    pool.give_back(2)
    assert pool.num_used == 3
    assert pool.take() == 2


def test_an_empty_pool_refuses() -> None:
    pool = make_pool(1)
    pool.take()
    with pytest.raises(AssertionError, match="the pool is empty"):
        pool.take()


def test_giving_back_twice_is_refused() -> None:
    pool = make_pool(2)
    page = pool.take()
    pool.give_back(page)
    with pytest.raises(AssertionError, match=f"page {page} was given back twice"):
        pool.give_back(page)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_page_bytes_count_keys_and_values_of_all_layers(dtype: torch.dtype, size: int) -> None:
    pool = make_pool(3, dtype=dtype)
    assert pool.page_bytes == 2 * 2 * 5 * 3 * 4 * size
    assert pool.cache.keys_NPLHK.nbytes + pool.cache.values_NPLHK.nbytes == 3 * pool.page_bytes


def test_pages_in_8_bits_come_with_scales() -> None:
    pool = make_pool(3, dtype=FP8, poison=True)
    assert pool.page_bytes == 2 * 2 * 5 * 3 * (4 + 4)
    assert sum(one.nbytes for one in pool.cache.tensors) == 3 * pool.page_bytes
    scales = pool.cache.scales(1)
    assert scales is not None and scales.keys_PHL.shape == (3, 3, 5)
    assert all(bool(one.float().isnan().all()) for one in pool.cache.tensors)
    assert make_pool(1).cache.scales(0) is None


def test_the_published_model_s_pages_are_about_half_as_large_in_8_bits() -> None:
    wide, narrow = (page_bytes(30, 4680, 12, 128, dtype) for dtype in (torch.bfloat16, FP8))
    assert wide / narrow == pytest.approx(2 * 128 / (128 + 4))


def test_free_pages_hold_nan_when_poisoned() -> None:
    pool = make_pool(3, poison=True)
    cache = pool.cache
    assert bool(cache.keys_NPLHK.isnan().all())
    assert bool(cache.values_NPLHK.isnan().all())
    page, other = pool.take(), pool.take()
    for owned in (page, other):
        cache.keys_NPLHK[:, owned] = 1.0
        cache.values_NPLHK[:, owned] = 2.0
    pool.give_back(page)
    assert bool(cache.keys_NPLHK[:, page].isnan().all())
    assert bool(cache.values_NPLHK[:, page].isnan().all())
    assert bool((cache.keys_NPLHK[:, other] == 1.0).all())
    assert bool((cache.values_NPLHK[:, other] == 2.0).all())


def test_free_pages_are_left_alone_without_poison() -> None:
    pool = make_pool(1)
    page = pool.take()
    pool.cache.keys_NPLHK[:, page] = 1.0
    pool.give_back(page)
    assert bool((pool.cache.keys_NPLHK == 1.0).all())


@pytest.mark.parametrize(("window", "sinks"), [(7, 0), (7, 1), (4, 2), (2, 0), pytest.param(3, 2), pytest.param(1, 0)])
def test_fifty_blocks_in_a_window_of_pages(window: int, sinks: int) -> None:
    rollout = windowed(window, sinks)
    pool = make_pool(window, poison=True)
    allocated = pool.cache.keys_NPLHK.data_ptr()
    pages = VideoPages(pool, rollout)
    page_of: dict[int, int] = {}
    for block in range(50):
        seen = attended_blocks(rollout, block)
        assert pages_seen(pages, block) == tuple(page_of[b] for b in seen), "a page moved"
        page_of[block] = pages.claim(block)
        assert page_of[block] not in [page_of[b] for b in seen]
        pool.cache.keys_NPLHK[:, page_of[block]] = float(block)
        assert pool.num_used <= window
        pages.evict_after(block)
        for b in attended_blocks(rollout, block + 1):
            assert bool((pool.cache.keys_NPLHK[:, page_of[b]] == float(b)).all())
        assert pool.num_used == len(attended_blocks(rollout, block + 1))
    assert pool.cache.keys_NPLHK.data_ptr() == allocated
    pages.release()
    assert pool.num_used == 0
    assert bool(pool.cache.keys_NPLHK.isnan().all())


def test_releasing_twice_is_harmless() -> None:
    pool = make_pool(2)
    pages = VideoPages(pool, windowed(2, 0))
    pages.claim(0)
    pages.release()
    pages.release()
    assert pool.num_used == 0


def test_a_block_claims_one_page() -> None:
    pages = VideoPages(make_pool(2), windowed(2, 0))
    pages.claim(0)
    with pytest.raises(AssertionError, match="block 0 comes after block 0"):
        pages.claim(0)


def test_two_videos_share_a_pool_and_no_page() -> None:
    pool = make_pool(6)
    first, second = VideoPages(pool, windowed(3, 0)), VideoPages(pool, windowed(3, 0))
    for block in range(20):
        first.claim(block)
        second.claim(block)
        assert set(pages_seen(first, block)).isdisjoint(pages_seen(second, block))
        first.evict_after(block)
        second.evict_after(block)
    first.release()
    assert pool.num_used == len(pages_seen(second, 20))


def test_a_page_that_was_not_written_is_unclaimed() -> None:
    pool = make_pool(3, poison=True)
    pages = VideoPages(pool, windowed(3, 0))
    first = pages.claim(0)
    pages.evict_after(0)
    pool.cache.keys_NPLHK[:, pages.claim(1)] = 1.0
    pages.unclaim(1)
    assert pool.num_used == 1
    assert bool(pool.cache.keys_NPLHK.isnan().all())
    assert pages_seen(pages, 1) == (first,)
    again = pages.claim(1)
    pages.evict_after(1)
    assert pages_seen(pages, 2) == (first, again)
    assert pool.num_used == 2


def test_an_unclaimed_block_comes_again_before_the_next() -> None:
    pages = VideoPages(make_pool(3), windowed(3, 0))
    pages.claim(0)
    pages.unclaim(0)
    pages.claim(0)
    pages.claim(1)
    with pytest.raises(AssertionError, match="block 0 comes after block 1"):
        pages.claim(0)


@pytest.mark.parametrize(("window", "sinks"), [(7, 0), (7, 1), (4, 2), (2, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("resumed", [2, 3, 10])
@pytest.mark.parametrize("stumbles", [False, True])
def test_a_restored_video_attends_to_what_it_did_not_skip(
    window: int, sinks: int, resumed: int, stumbles: bool
) -> None:
    rollout = windowed(window, sinks)
    pool = make_pool(window, poison=True)
    pages, page_of = VideoPages(pool, rollout), dict[int, int]()
    restored = attended_blocks(rollout, resumed)
    for block in (*restored, *range(resumed, resumed + 2 * window)):
        if stumbles:
            pages.claim(block)
            pages.unclaim(block)
        page_of[block] = pages.claim(block)
        there = [b for b in attended_blocks(rollout, block) if b in page_of]
        assert pages_seen(pages, block) == tuple(page_of[b] for b in there)
        pool.cache.keys_NPLHK[:, page_of[block]] = float(block)
        pages.evict_after(block)
        kept = [b for b in attended_blocks(rollout, block + 1) if b in page_of]
        assert pool.num_used == len(kept)
        assert all(bool((pool.cache.keys_NPLHK[:, page_of[b]] == float(b)).all()) for b in kept)
    assert pages_seen(pages, resumed + 2 * window) == tuple(page_of[b] for b in kept), "the loss is forgotten"
    assert len(kept) == window - 1
    pages.release()
    assert pool.num_used == 0


def test_skipped_blocks_are_not_evicted_and_later_ones_are() -> None:
    pool = make_pool(3)
    pages = VideoPages(pool, windowed(3, 1))
    sink = pages.claim(0)
    pages.evict_after(0)
    recent = pages.claim(8)
    assert pages_seen(pages, 8) == (sink,)
    pages.evict_after(8)  # block 7 would leave the window
    assert pages_seen(pages, 9) == (sink, recent)
    assert pool.num_used == 2
    newest = pages.claim(9)
    pages.evict_after(9)
    assert pages_seen(pages, 10) == (sink, newest)
    assert pool.num_used == 2
