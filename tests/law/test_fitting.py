"""Stages and the text encoder go where there is room, and what does not fit is told with its numbers."""

from dataclasses import replace
from typing import Any

import pytest

from engine.engine_config import EngineConfig, Precision
from engine.law.fitting import Device, MemoryPlan, plan_memory, room_for_videos
from engine.law.memory import Item, text_encoder_bytes
from engine.law.placement import PassCosts
from tests.law.published import WAN, wan

GB = 10**9
SAME = PassCosts(denoise_s=(0.2, 0.4, 0.6, 0.8), decode_s=0.2)


def gpus(*free_gb: float) -> tuple[Device, ...]:
    return tuple(Device(name=f"cuda:{i}", kind="GPU", free_bytes=int(gb * GB)) for i, gb in enumerate(free_gb))


def plan(config: EngineConfig, *free_gb: float, costs: PassCosts = SAME, **changes: Any) -> MemoryPlan:
    return plan_memory(config, gpus(*free_gb), costs, **changes)


def stages(memory: MemoryPlan) -> list[tuple[int, ...]]:
    return [worker.placement.stages for worker in memory.workers]


def test_equal_devices_are_cut_by_time_alone() -> None:
    assert stages(plan(wan(3), 80, 80, 80)) == [(0,), (1, 2), (3,)]


def test_a_small_device_gets_fewer_stages_though_that_is_slower() -> None:
    memory = plan(wan(3), 80, 24, 80)
    assert memory.fits and stages(memory) == [(0, 1), (2,), (3,)]
    assert memory.workers[1].total_bytes <= 24 * GB


def test_without_any_cut_that_fits_the_fastest_is_refused_with_its_numbers() -> None:
    memory = plan(wan(2), 20, 20)
    assert not memory.fits and len(memory.shortfalls) == 2
    assert memory.shortfalls[0].startswith("cuda:0 has 20.0 GB free and its worker needs ")


def test_the_text_encoder_goes_to_the_least_busy_worker_that_has_room() -> None:
    costs = replace(SAME, decode_s=0.05)
    on = [worker.placement.embeds_text for worker in plan(wan(5), 24, 40, 40, 40, 40, costs=costs).workers]
    assert on == [False, False, False, False, True]
    memory = plan(wan(5), 24, 40, 40, 40, 24, costs=costs)
    assert [worker.placement.embeds_text for worker in memory.workers] == [False, True, False, False, False]
    assert memory.workers[1].held[Item.TEXT_ENCODER] == text_encoder_bytes(wan())


def test_without_room_on_any_gpu_it_goes_to_the_host_if_that_has_room() -> None:
    memory = plan(wan(5), *[24] * 5, host_bytes=(64 * GB,))
    (holder,) = [worker for worker in memory.workers if worker.placement.embeds_text]
    assert memory.fits and holder.placement.text_on_host and holder.placement.names[0] == "text (on the host)"
    assert holder.held[Item.TEXT_ENCODER] == 0 and holder.host_bytes == text_encoder_bytes(wan())
    full = plan(wan(5), *[24] * 5, host_bytes=(8 * GB,))
    assert not full.fits


@pytest.mark.parametrize(("asked", "rank", "on_host"), [("cuda:3", 3, False), ("cpu", None, True)])
def test_a_text_device_that_is_asked_for_is_taken(asked: str, rank: int | None, on_host: bool) -> None:
    memory = plan(wan(5, text_device=asked), *[80] * 5)
    (holder,) = [worker for worker in memory.workers if worker.placement.embeds_text]
    assert holder.placement.text_on_host == on_host and rank in {holder.placement.rank, None}


def test_what_the_host_lacks_is_told() -> None:
    memory = plan(wan(1, text_device="cpu"), 80, host_bytes=(4 * GB,))
    assert memory.shortfalls == ("the host has 4.0 GB of memory free and its worker needs 11.4 GB of it",)


def test_workers_on_cpus_share_their_host() -> None:
    config = replace(wan(), devices=("cpu", "cpu"))
    devices = tuple(Device(name="cpu", kind="cpu", free_bytes=90 * GB) for _ in range(2))
    memory = plan_memory(config, devices, SAME, (90 * GB,))
    needed = sum(worker.total_bytes for worker in memory.workers)
    assert memory.shortfalls == (
        f"the host has 90.0 GB of memory free and its 2 workers need {needed / GB:.1f} GB of it",
    )
    assert plan_memory(config, devices, SAME, (needed,)).fits


def test_measuring_needs_room_too() -> None:
    serving = replace(wan(2, max_videos=1), text_device="cpu")
    assert plan(serving, 24, 60).fits
    memory = plan(serving, 12, 60, measures=True)
    assert any("measuring needs" in sentence for sentence in memory.shortfalls)


def test_room_for_videos_counts_everything_but_videos() -> None:
    config = wan()
    assert room_for_videos(config, plan(config, 85)) == 2
    narrow = wan(precision=Precision(kv_dtype="fp8"))
    assert room_for_videos(narrow, plan(narrow, 85)) > 2
    assert room_for_videos(config, plan(config, 24)) == 0
    for count in (2, 3):
        more = replace(config, max_videos=count)
        assert plan(more, 85).fits == (count <= 2)


def test_the_table_has_a_row_a_worker_and_its_items_sum_to_the_total() -> None:
    memory = plan(wan(5), *[24] * 5, host_bytes=(64 * GB,))
    columns, *rows = memory.table
    assert len(rows) == 5 and {len(row) for row in rows} == {len(columns)}
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        items = [float(cells[item]) for item in Item if cells[item][0] != "("]
        assert sum(items) == pytest.approx(float(cells["total"]), abs=0.06)
    assert "(11.36 on the host)" in rows[0]


def test_frames_per_second_are_those_of_the_slowest_worker_of_each_chain() -> None:
    assert plan(wan(5), *[80] * 5).frames_per_s == pytest.approx(12 / 0.2)
    assert plan(wan(10), *[80] * 10).frames_per_s == pytest.approx(2 * 12 / 0.2)
    assert WAN.rollout.latent_frames_per_block == 3
