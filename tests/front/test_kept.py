"""What a store is told of a video, and what may be told of the video before it is stored."""

import asyncio
from dataclasses import replace

import pytest

from engine import (
    Ended,
    EndReason,
    EngineStopped,
    EngineUnavailable,
    Made,
    Overloaded,
    StorageFull,
    VideoState,
    is_interruption,
)
from tests.front.kept_videos import ENDLESS, NUM_BLOCKS, REQUEST, happenings, read, run, serving
from tests.instant import Behaviour
from tests.kept import MemoryKept


def test_a_store_is_told_all_that_readers_get() -> None:
    async def body() -> None:
        async with serving() as engine:
            stores: list[MemoryKept] = []
            video = await engine.open(REQUEST, keep=lambda name: stores.append(MemoryKept(name)) or stores[0])
            fragments = await read(video)
            await video.freed()
        (kept,) = stores
        assert (kept.id, kept.fragments, kept.init_segment) == (video.id, fragments, video.init_segment)
        assert kept.prompts == [(0, "x"), (6, "y")] and kept.outcome is EndReason.COMPLETED

    run(body)


def test_a_changed_prompt_is_stored_when_it_is_answered() -> None:
    async def body() -> None:
        async with serving(Behaviour(block_s=60.0, holds_prompts=True)) as engine:
            kept = MemoryKept("a")
            video = await engine.open(REQUEST, None, keep=lambda _: kept)
            changing = asyncio.create_task(video.change_prompt("z"))
            while not changing.done():
                await asyncio.sleep(0)
                engine.workers.answer_prompts()
            assert await changing == 0 and (0, "z") in kept.prompts
            while video.status().state != VideoState.RUNNING:
                await asyncio.sleep(0)
                engine.workers.answer_prompts()
            assert dict(kept.prompts) == {0: "z", 6: "y"}

    run(body)


def test_a_refused_video_is_not_kept_and_one_that_cannot_be_kept_is_not_queued() -> None:
    def full(video_id: str) -> MemoryKept:
        raise StorageFull("there is no room")

    async def body() -> None:
        async with serving(Behaviour(block_s=60.0), max_videos=1, max_queue=0) as engine:
            with pytest.raises(StorageFull):
                await engine.open(ENDLESS, keep=full)
            await engine.open(ENDLESS)
            await asyncio.sleep(0.01)
            with pytest.raises(Overloaded):
                await engine.open(ENDLESS, keep=full)
            assert len(engine.videos) == 1

    run(body)


def test_nothing_is_told_of_a_block_before_it_is_stored() -> None:
    async def body() -> None:
        async with serving() as engine:
            kept = MemoryKept("a", is_slow=True)
            video = await engine.open(REQUEST, None, keep=lambda _: kept)
            assert len(await read(video)) == NUM_BLOCKS, "readers need not wait for the store"
            while kept.outcome is None:
                await video.changed()
            status = video.status()
            assert (status.blocks_done, status.seconds_done, status.end_reason) == (0, 0, None)
            kept.num_stored = 4
            video.stored()
            assert video.status().blocks_done == 4 and video.status().seconds_done == pytest.approx(45 / 16)
            assert [one.block for one in happenings(video) if isinstance(one, Made)] == [0, 1, 2, 3]
            waiting = asyncio.create_task(video.freed())
            await asyncio.sleep(0)
            assert not video.is_settled and not waiting.done()
            kept.num_stored = NUM_BLOCKS
            video.stored()
            await waiting
            status, last = video.status(), happenings(video)[-1]
            assert status.end_reason is EndReason.COMPLETED and status.blocks_done == NUM_BLOCKS
            assert last == Ended(EndReason.COMPLETED, NUM_BLOCKS, 6.0)

    run(body)


@pytest.mark.parametrize("seconds", [6.0, None], ids=["made", "running"])
def test_a_video_that_cannot_be_stored_fails(seconds: float | None) -> None:
    async def body() -> None:
        async with serving(Behaviour(block_s=0.001)) as engine:
            kept = MemoryKept("a", is_slow=True)
            video = await engine.open(replace(REQUEST, seconds=seconds), None, keep=lambda _: kept)
            while video.kept.stop < NUM_BLOCKS or (seconds is not None and kept.outcome is None):
                await video.changed()
            kept.num_stored = 2
            video.stored()
            video.fail(StorageFull("there is no room"))
            await video.freed()
            status, last = video.status(), happenings(video)[-1]
            assert isinstance(status.failure, StorageFull) and status.end_reason is None and status.blocks_done == 2
            assert kept.outcome is status.failure
            assert isinstance(last, Ended) and last.outcome is status.failure and last.blocks_done == 2
            video.fail(StorageFull("again"))
            assert video.failure is status.failure

    run(body)


def test_what_ends_with_the_server_is_an_interruption() -> None:
    async def body() -> None:
        running, queued, stopped = (MemoryKept(name) for name in ("running", "queued", "stopped"))
        async with serving(Behaviour(block_s=0.01), max_videos=1) as engine:
            video = await engine.open(ENDLESS, None, keep=lambda _: running)
            await engine.open(ENDLESS, None, keep=lambda _: queued)
            while video.kept.stop < 1:
                await video.changed()
            await engine.drain()
        async with serving(Behaviour(block_s=60.0)) as engine:
            await engine.open(ENDLESS, None, keep=lambda _: stopped)
        assert running.outcome is EndReason.DRAIN and isinstance(queued.outcome, EngineUnavailable)
        assert isinstance(stopped.outcome, EngineStopped)
        for kept in (running, queued, stopped):
            assert kept.outcome is not None and is_interruption(kept.outcome)
        assert not is_interruption(EndReason.CANCELLED) and not is_interruption(EndReason.COMPLETED)

    run(body)
