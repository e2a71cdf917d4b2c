"""The runner against the oracle, and what tickets do on their way."""

import gc

import psutil
import pytest
import torch

from engine.config import Order
from engine.engine_config import Fault, FaultKind
from engine.law.window import pages_per_video
from engine.messages import CloseTicket, VideoBroken
from tests.stage import micro
from tests.stage.micro import Bench, oracle


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 3, 8])
@pytest.mark.parametrize("sink_blocks", [0, 1])
def test_equals_the_oracle(order: Order, max_segments: int, sink_blocks: int) -> None:
    config = micro.rollout(order, sink_blocks=sink_blocks)
    bench = Bench(config, max_segments=max_segments)
    bench.open("a")
    for block in range(7):
        bench.block("a", block, last=block == 6)
    bench.close("a")
    bench.run()
    for block, expected in enumerate(oracle(config, 7)):
        torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)
    assert bench.pool.num_used == 0


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 8])
def test_blocks_without_context_equal_the_oracle(order: Order, max_segments: int) -> None:
    config = micro.rollout(order, window_blocks=1)
    bench = Bench(config, max_segments=max_segments)
    bench.open("a")
    for block in range(5):
        bench.block("a", block)
    bench.run()
    for block, expected in enumerate(oracle(config, 5)):
        torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)
    assert bench.pool.num_used == 0


def test_tickets_that_come_one_by_one_give_the_same_as_all_at_once() -> None:
    config = micro.rollout()
    bench = Bench(config)
    bench.open("a")
    for block in range(5):
        bench.block("a", block)
        bench.run()
    for block, expected in enumerate(oracle(config, 5)):
        torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_segments", [2, 8])
def test_videos_side_by_side_do_not_touch_each_other(max_segments: int) -> None:
    config = micro.rollout()
    bench = Bench(config, max_segments=max_segments)
    bench.open("a", seed=5, prompt=1)
    bench.open("b", seed=6, prompt=2)
    for block in range(5):
        bench.block("a", block)
        bench.block("b", block)
    bench.run()
    for video, seed, prompt in (("a", 5, 1), ("b", 6, 2)):
        for block, expected in enumerate(oracle(config, 5, seed, prompt)):
            torch.testing.assert_close(bench.latents[video, block], expected, atol=1e-4, rtol=0)


def test_a_prompt_change_takes_effect_at_its_block_and_not_before() -> None:
    plain, changed = Bench(micro.rollout(), max_segments=8), Bench(micro.rollout(), max_segments=8)
    for bench in (plain, changed):
        bench.open("a")
        for block in range(5):
            if bench is changed and block == 3:
                bench.prompt("a", 2)
            bench.block("a", block)
        bench.run()
    for block in range(3):
        assert torch.equal(plain.latents["a", block], changed.latents["a", block])
    assert not torch.allclose(plain.latents["a", 3], changed.latents["a", 3], atol=1e-3)


def test_a_cancelled_video_is_not_computed_and_frees_its_pages() -> None:
    bench = Bench(micro.rollout())
    bench.open("a")
    bench.open("b")
    for block in range(3):
        bench.block("a", block)
    bench.run()
    assert bench.pool.num_used > 0
    for block in range(3, 6):
        bench.block("a", block)
        bench.block("b", block - 3)
    bench.runner.cancel("a")
    bench.close("a")
    bench.run()
    assert ("a", 3) not in bench.latents
    for block, expected in enumerate(oracle(micro.rollout(), 3)):
        torch.testing.assert_close(bench.latents["b", block], expected, atol=1e-4, rtol=0)
    assert CloseTicket(video="a") in bench.tickets
    bench.close("b")
    bench.run()
    assert bench.pool.num_used == 0


@pytest.mark.parametrize("order", list(Order))
def test_a_video_never_takes_more_pages_than_admission_counts(order: Order) -> None:
    config = micro.rollout(order)
    bench = Bench(config, num_pages=pages_per_video(config))
    bench.open("a")
    for block in range(12):
        bench.block("a", block)
    bench.run()
    writers = pages_per_video(config) // config.window_blocks
    assert bench.pool.num_used == writers * (config.window_blocks - 1)  # the last page is taken during a forward


def test_videos_of_two_sizes_share_the_pages_and_not_a_forward() -> None:
    beside, alone = Bench(micro.rollout(), max_segments=8), Bench(micro.rollout(), max_segments=8)
    beside.open("a")
    for bench in (beside, alone):
        bench.open("b", seed=6, size=(2, 4))
        for block in range(5):
            beside.block("a", block)
            bench.block("b", block)
        bench.run()
    for block, expected in enumerate(oracle(micro.rollout(), 5)):
        torch.testing.assert_close(beside.latents["a", block], expected, atol=1e-4, rtol=0)
        assert beside.latents["b", block].shape == (3, 4, 2, 4)
        torch.testing.assert_close(beside.latents["b", block], alone.latents["b", block], atol=1e-6, rtol=0)


# --- failures of one video ---


def two_videos(*faults: Fault, max_segments: int = 1, order: Order = Order.STEP_FIRST) -> Bench:
    """Videos a (seed 5) and b (seed 6), five blocks each, side by side."""
    bench = Bench(micro.rollout(order), max_segments=max_segments, faults=faults)
    bench.open("a", seed=5)
    bench.open("b", seed=6, prompt=2)
    for block in range(5):
        bench.block("a", block)
        bench.block("b", block)
    bench.run()
    return bench


def alone(video: str, max_segments: int = 1, order: Order = Order.STEP_FIRST) -> Bench:
    bench = Bench(micro.rollout(order), max_segments=max_segments)
    bench.open(video, *{"a": (5, 1), "b": (6, 2)}[video])
    for block in range(5):
        bench.block(video, block)
    bench.run()
    return bench


def assert_same_video(bench: Bench, expected: Bench, video: str) -> None:
    """To the last bit when forwards hold one segment, as they hold the same ones then."""
    for block in range(5):
        torch.testing.assert_close(bench.latents[video, block], expected.latents[video, block], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 8])
@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("block", [0, 3])
def test_a_video_without_memory_ends_typed_and_the_other_goes_on(
    order: Order, max_segments: int, stage: int, block: int
) -> None:
    fault = Fault(kind=FaultKind.OUT_OF_MEMORY, stage=stage, block=block, seed=6)
    bench = two_videos(fault, max_segments=max_segments, order=order)
    message = "cpu had no memory left for a pass (rehearsed)"
    assert bench.told == [VideoBroken(video="b", code="engine_oom", message=message)]
    assert ("b", 4) not in bench.latents and ("b", block) not in bench.latents
    assert_same_video(bench, alone("a", max_segments, order), "a")
    for video in ("a", "b"):
        bench.close(video)
    bench.run()
    assert bench.pool.num_used == 0
    assert bench.tickets[-2:] == [CloseTicket(video="a"), CloseTicket(video="b")]


def test_of_two_videos_in_a_forward_the_one_that_came_last_ends() -> None:
    fault = Fault(kind=FaultKind.OUT_OF_MEMORY, stage=1, block=0, seed=6)
    bench = Bench(micro.rollout(), faults=(fault,))
    bench.open("b", seed=6)
    bench.block("b", 0)
    with torch.inference_mode():
        bench.runner.tick()
    bench.open("a", seed=5)
    bench.block("a", 0)
    bench.run()
    assert [told.video for told in bench.told] == ["a"]
    assert list(bench.latents) == [("b", 0)]
    assert bench.begun[:3] == [("b",), ("a", "b"), ("b",)], "who takes part is told before a forward"


def test_an_older_video_outlives_its_own_fault_beside_a_younger_one() -> None:
    bench = two_videos(Fault(kind=FaultKind.OUT_OF_MEMORY, stage=1, block=2, seed=5), max_segments=8)
    assert [told.video for told in bench.told] == ["b"]
    assert_same_video(bench, alone("a", 8), "a")


@pytest.mark.parametrize("max_segments", [1, 2, 8])
@pytest.mark.parametrize("stage", [0, 3])
def test_nan_stays_within_its_video(max_segments: int, stage: int) -> None:
    bench = two_videos(Fault(kind=FaultKind.NAN, stage=stage, block=2, seed=6), max_segments=max_segments)
    spoilt = [bool(bench.latents["b", block].isnan().all()) for block in range(5)]
    finite = [bool(torch.isfinite(bench.latents["b", block]).all()) for block in range(5)]
    assert spoilt == [False, False, True, True, True] and finite == [True, True, False, False, False]
    assert_same_video(bench, alone("a", max_segments), "a")
    bench.close("b")
    bench.open("c", seed=5)
    for block in range(5):
        bench.block("c", block)
    bench.run()
    for block in range(5):  # pages that held NaN of b serve c
        torch.testing.assert_close(bench.latents["c", block], bench.latents["a", block], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_thousand_blocks_in_flat_memory() -> None:
    config = micro.rollout()
    bench = Bench(config, num_pages=pages_per_video(config))
    bench.open("a")
    process, resident_bytes = psutil.Process(), {}
    for block in range(1_000):
        bench.block("a", block)
        if block % 4 == 3:
            bench.run()
            assert torch.isfinite(bench.latents["a", block]).all()
            bench.latents.clear()
            bench.tickets.clear()
        if block in {499, 999}:
            gc.collect()
            resident_bytes[block] = process.memory_info().rss
    assert bench.pool.num_used < pages_per_video(config)
    assert resident_bytes[999] - resident_bytes[499] < 500 * 2**10  # a KiB a block
