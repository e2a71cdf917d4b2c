"""Videos that outlive their engine: what a store is told, what may be told before it is stored, and how they go on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine import (
    Ended,
    EndReason,
    EngineConfig,
    EngineStopped,
    EngineUnavailable,
    Fragment,
    Happening,
    InitSegment,
    Made,
    ModelChanged,
    Overloaded,
    Pace,
    PastVideo,
    PromptAt,
    Queued,
    Recovered,
    Recovery,
    StartError,
    StorageFull,
    VideoHandle,
    VideoRequest,
    VideoState,
    is_interruption,
)
from tests.instant import MANIFEST, Behaviour, InstantEngine
from tests.kept import MemoryKept
from tests.painted_mp4 import PaintedMedia

REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"), PromptAt(at_s=4, text="y")),
    width_px=416,
    height_px=240,
    fps=16,
    seconds=6,
    pace=Pace.FAST,
)
ENDLESS = replace(REQUEST, seconds=None)
NUM_BLOCKS = 9
CREATED_AT = time.time() - 3600


def engine_of(behaviour: Behaviour | None = None, **settings: Any) -> InstantEngine:
    return InstantEngine(EngineConfig(manifest=MANIFEST, **settings), behaviour)


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None, **settings: Any) -> AsyncIterator[InstantEngine]:
    engine = engine_of(behaviour, **settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def read(video: VideoHandle) -> list[Fragment]:
    return [fragment async for fragment in video.read()]


def happenings(video: VideoHandle) -> list[Happening]:
    told, number = [], 0
    while (happened := video.happened(number)) is not None:
        number, happening = happened
        told.append(happening)
    return told


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


async def made(behaviour: Behaviour | None = None, request: VideoRequest = REQUEST) -> MemoryKept:
    """A whole video's store."""
    async with serving(behaviour) as engine:
        video = await engine.open(request, None, keep=MemoryKept)
        await video.freed()
        kept = video._video.kept
        assert isinstance(kept, MemoryKept)
        return kept


def past_of(kept: MemoryKept, num_blocks: int, request: VideoRequest = REQUEST) -> PastVideo:
    return kept.past(request, MANIFEST.name, created_at=CREATED_AT, num_blocks=num_blocks)


# --- what a store is told ---


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
            kept.outcome = None
            video.fail(StorageFull("there is no room"))
            await video.freed()
            status, last = video.status(), happenings(video)[-1]
            assert isinstance(status.failure, StorageFull) and status.end_reason is None and status.blocks_done == 2
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


# --- going on ---


@pytest.mark.parametrize("num_blocks", [0, 1, 5, 8])
def test_a_restored_video_equals_one_that_never_stopped(num_blocks: int) -> None:
    async def body() -> None:
        behaviour = Behaviour(media=PaintedMedia)
        whole = await made(behaviour)
        past = past_of(whole, num_blocks)
        kept = whole.reopened(past)
        async with serving(Behaviour(media=PaintedMedia, stays_starting=True)) as engine:
            video = engine.restore(past, kept)
            reading = asyncio.create_task(read(video))
            status = video.status()
            assert (video.id, status.created_at, status.blocks_done) == (whole.id, CREATED_AT, num_blocks)
            assert status.state is VideoState.QUEUED and status.queue_position == 1
            assert [mark.text for mark in status.prompts] == ["x", "y"]
            engine.workers.serve()
            assert await reading == whole.fragments
            await video.freed()
        assert kept.fragments == whole.fragments and kept.outcome is EndReason.COMPLETED
        assert kept.prompts == [(0, "x"), (6, "y")] and video.init_segment == whole.init_segment
        expected = [Recovery(block=num_blocks, exact=True)] if num_blocks else []
        assert list(video.status().recoveries) == kept.recoveries == expected

    run(body)


def test_what_is_stored_can_be_read_while_the_model_loads() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 5)
        async with serving(Behaviour(stays_starting=True)) as engine:
            video = engine.restore(past, whole.reopened(past))
            reader = video.read()
            assert [await anext(reader) for _ in range(5)] == whole.fragments[:5]
            assert video.init_segment == whole.init_segment and video.kept == range(5)

    run(body)


def test_its_story_goes_on_behind_what_was_told_before() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 5)
        async with serving() as engine:
            video = engine.restore(past, whole.reopened(past))
            await video.freed()
        told = happenings(video)
        first = video.happened(0)
        assert first is not None and first[0] > 3_500_000 and isinstance(told[0], Queued)
        assert video.happened(17) == first, "who has only older numbers gets all of it"
        assert Recovered(5, True) in told
        assert [one.block for one in told if isinstance(one, Made)] == [5, 6, 7, 8]
        assert told[-1] == Ended(EndReason.COMPLETED, NUM_BLOCKS, 6.0)

    run(body)


def test_a_whole_one_just_ends() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, NUM_BLOCKS)
        kept = whole.reopened(past)
        async with serving(Behaviour(stays_starting=True)) as engine:
            video = engine.restore(past, kept)
            await video.freed()
            status = video.status()
            assert status.end_reason is EndReason.COMPLETED and kept.outcome is EndReason.COMPLETED
            assert await read(video) == whole.fragments and status.recoveries == ()
            assert status.ended_at is not None and status.ended_at == pytest.approx(time.time(), abs=60)

    run(body)


def test_it_is_not_refused_by_a_full_queue() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 5)
        async with serving(Behaviour(stays_starting=True), max_videos=1, max_queue=0) as engine:
            videos = [engine.restore(replace(past, id=f"{n}"), whole.reopened(past)) for n in range(3)]
            engine.workers.serve()
            for video in videos:
                await video.freed()
            assert [video.end_reason for video in videos] == [EndReason.COMPLETED] * 3

    run(body)


@pytest.mark.parametrize(
    "change",
    [{"model": "another"}, {"request": replace(REQUEST, width_px=64)}, {"request": replace(REQUEST, fps=61)}],
    ids=["model", "size", "fps"],
)
def test_one_that_the_model_does_not_make_fails(change: dict[str, Any]) -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 5)
        kept = whole.reopened(past)
        async with serving() as engine:
            video = engine.restore(replace(past, **change), kept)
            await video.freed()
            assert isinstance(video.failure, ModelChanged) and kept.outcome is video.failure
            assert [fragment.block for fragment in kept.fragments] == list(range(5)) and len(video.kept) == 5

    run(body)


def test_a_prompt_in_the_queue_holds_from_the_first_block_that_is_not_stored() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 3)
        kept = whole.reopened(past)
        async with serving(Behaviour(stays_starting=True)) as engine:
            video = engine.restore(past, kept)
            changing = asyncio.create_task(video.change_prompt("z"))
            await asyncio.sleep(0)
            engine.workers.serve()
            assert await changing == 3
            await video.freed()
            marks = {mark.block: mark.text for mark in video.status().prompts}
        assert marks[0] == "x" and marks[await changing] == "z" and kept.prompts[-1] == (await changing, "z")
        assert kept.fragments == whole.fragments

    run(body)


@pytest.mark.parametrize("pace", Pace)
def test_what_is_stored_of_a_long_one_does_not_hold_it_up(pace: Pace) -> None:
    async def body() -> None:
        long = replace(REQUEST, seconds=60, pace=pace)
        whole = await made(request=replace(long, pace=Pace.FAST))
        past = past_of(whole, len(whole.fragments) - 6, long)
        async with serving(lead_target_s=5.0) as engine:
            video = engine.restore(past, whole.reopened(past))
            await video.freed()
            assert len(await read(video)) == len(whole.fragments)

    run(body)


def test_one_that_was_restored_approximately_before_is_not_called_exact() -> None:
    async def body() -> None:
        whole = await made()
        past = replace(past_of(whole, 5), recoveries=(Recovery(block=4, exact=False),))
        async with serving() as engine:
            video = engine.restore(past, whole.reopened(past))
            await video.freed()
            assert video.status().recoveries[1:] == (Recovery(block=5, exact=False),)

    run(body)


def test_another_loss_of_workers_on_the_way_changes_nothing() -> None:
    async def body() -> None:
        whole = await made(Behaviour(media=PaintedMedia))
        past = past_of(whole, 5)
        kept = whole.reopened(past)
        async with serving(Behaviour(media=PaintedMedia, block_s=0.002)) as engine:
            video = engine.restore(past, kept)
            while video.status().state is VideoState.QUEUED:
                await video.changed()
            await asyncio.sleep(0.005)
            engine.workers.lose()
            engine.workers.serve()
            await video.freed()
        assert kept.fragments == whole.fragments
        assert kept.recoveries[:2] == [Recovery(block=5, exact=True)] * 2

    run(body)


def test_an_endless_one_goes_on_behind_the_blocks_that_are_left_of_it() -> None:
    async def body() -> None:
        async with serving(Behaviour(block_s=0.001)) as engine:
            kept = MemoryKept("a")
            video = await engine.open(ENDLESS, None, keep=lambda _: kept)
            while video.kept.stop < 12:
                await video.changed()
        past = replace(past_of(kept, 12, ENDLESS), fragments=tuple(kept.fragments[4:12]))
        async with serving(Behaviour(block_s=0.001)) as engine:
            again = replace(kept.reopened(past), fragments=kept.fragments[:12], num_stored=12)
            video = engine.restore(past, again)
            assert video.kept == range(4, 12)
            while video.kept.stop < 15:
                await video.changed()
            assert again.fragments[12:15] == [video.peek(block) for block in range(12, 15)]

    run(body)


def test_another_encoder_fails_it() -> None:
    async def body() -> None:
        whole = await made()
        past = replace(past_of(whole, 5), init_segment=InitSegment(b"other", "avc1"))
        async with serving() as engine:
            video = engine.restore(past, replace(whole.reopened(past), init_segment=past.init_segment))
            await video.freed()
            assert video.failure is not None and video.failure.code == "encoder_failed" and len(video.kept) == 5

    run(body)


def test_workers_that_never_come_leave_it_for_the_next_server() -> None:
    async def body() -> None:
        whole = await made()
        past = past_of(whole, 5)
        kept = whole.reopened(past)
        async with serving(Behaviour(stays_starting=True)) as engine:
            engine.restore(past, kept)
            engine.workers.fail(StartError("no device"))
            assert kept.outcome is not None and is_interruption(kept.outcome)
            with pytest.raises(EngineUnavailable):
                engine.restore(past, whole.reopened(past))

    run(body)
