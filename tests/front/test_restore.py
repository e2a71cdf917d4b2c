"""Videos that outlive their engine: how they go on in the next."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from engine import (
    Ended,
    EndReason,
    EngineUnavailable,
    InitSegment,
    Made,
    ModelChanged,
    Pace,
    Paused,
    Queued,
    Recovered,
    Recovery,
    StartError,
    VideoState,
    is_interruption,
)
from tests.front.kept_videos import (
    CREATED_AT,
    ENDLESS,
    NUM_BLOCKS,
    REQUEST,
    happenings,
    made,
    past_of,
    read,
    run,
    serving,
)
from tests.instant import Behaviour
from tests.kept import MemoryKept
from tests.painted_mp4 import PaintedMedia


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


def test_a_paused_one_waits_until_it_is_resumed() -> None:
    async def body() -> None:
        whole = await made()
        past = replace(past_of(whole, 5), is_paused=True)
        kept = whole.reopened(past)
        async with serving() as engine:
            video, other = engine.restore(past, kept), await engine.open(REQUEST, None)
            await other.freed()
            status = video.status()
            assert (status.state, status.is_paused, status.queue_position) == (VideoState.SLEEPING, True, None)
            assert kept.is_paused and Paused() in happenings(video)
            video.resume()
            assert not kept.is_paused
            await video.freed()
        assert kept.fragments == whole.fragments and kept.outcome is EndReason.COMPLETED

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
