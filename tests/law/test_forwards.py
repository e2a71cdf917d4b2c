"""The mixes that are captured, and the largest forward that may come."""

import pytest

from engine.config import Order, RolloutConfig
from engine.law.forwards import Mix, largest_forward, steady_mixes

STEP_FIRST, BLOCK_FIRST = RolloutConfig(), RolloutConfig(order=Order.BLOCK_FIRST)
ALL = (0, 1, 2, 3)


def test_a_worker_with_all_stages_captures_both_passes_alone_and_together() -> None:
    alone = {Mix(count, 0) for count in range(1, 5)} | {Mix(0, count) for count in range(1, 5)}
    assert set(steady_mixes(STEP_FIRST, ALL, 8)) == alone | {Mix(count, count) for count in range(1, 5)}


def test_a_worker_of_one_stage_has_three_mixes() -> None:
    assert steady_mixes(STEP_FIRST, (2,), 8) == (Mix(1, 1), Mix(0, 1), Mix(1, 0))


def test_in_block_first_order_only_one_stage_writes() -> None:
    assert set(steady_mixes(BLOCK_FIRST, ALL, 8)) == {
        *(Mix(1, 0), Mix(0, 1), Mix(0, 2), Mix(0, 3), Mix(0, 4)),
        *(Mix(1, 1), Mix(1, 2), Mix(1, 3), Mix(1, 4)),
    }


@pytest.mark.parametrize("rollout", [STEP_FIRST, BLOCK_FIRST])
@pytest.mark.parametrize("max_segments", [1, 2, 3, 8])
def test_the_largest_comes_first_and_none_is_too_large(rollout: RolloutConfig, max_segments: int) -> None:
    sizes = [mix.num_segments for mix in steady_mixes(rollout, ALL, max_segments)]
    assert sizes == sorted(sizes, reverse=True) and max(sizes) <= max_segments


@pytest.mark.parametrize(
    ("stages", "max_segments", "max_videos", "most"),
    [(ALL, 8, 2, 8), (ALL, 100, 2, 12), (ALL, 100, 9, 36), ((1,), 8, 1, 3), ((1,), 8, 5, 5), ((), 8, 5, 0)],
)
def test_the_largest_forward(stages: tuple[int, ...], max_segments: int, max_videos: int, most: int) -> None:
    assert largest_forward(STEP_FIRST, stages, max_segments, max_videos) == most
