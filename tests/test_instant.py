"""The workers that other tests use speak as real ones do: the real engine recovers, cancels and queues on them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine import (
    EndReason,
    EngineConfig,
    Fragment,
    Pace,
    PromptAt,
    Reader,
    StartError,
    VideoHandle,
    VideoRequest,
    VideoState,
    WorkerLost,
)
from tests.instant import MANIFEST, Behaviour, InstantEngine

REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"),), width_px=416, height_px=240, fps=16, seconds=6, pace=Pace.FAST
)
ENDLESS = replace(REQUEST, seconds=None)
NUM_BLOCKS = 9


@asynccontextmanager
async def serving(behaviour: Behaviour, **settings: Any) -> AsyncIterator[InstantEngine]:
    engine = InstantEngine(EngineConfig(manifest=MANIFEST, **settings), behaviour)
    await engine.start()
    try:
        await engine.wait_ready()
        yield engine
    finally:
        await engine.stop()


async def read(video: VideoHandle) -> list[Fragment]:
    """The whole video."""
    return [fragment async for fragment in video.read()]


async def take(reader: Reader, num_blocks: int) -> list[Fragment]:
    """The next fragments."""
    return [await anext(reader) for _ in range(num_blocks)]


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


@pytest.mark.parametrize("num_devices", [1, 5, 6])
def test_a_video_is_made_and_its_pages_are_free_again(num_devices: int) -> None:
    async def body() -> None:
        async with serving(Behaviour(), devices=("cpu",) * num_devices) as engine:
            videos = [await engine.open(REQUEST) for _ in range(3)]
            made = await asyncio.gather(*map(read, videos))
            assert [[one.block for one in blocks] for blocks in made] == [[*range(NUM_BLOCKS)]] * 3
            assert made[0] == made[1] and sum(one.num_frames for one in made[0]) == 6 * 16
            await videos[0].freed()
            assert [video.end_reason for video in videos] == [EndReason.COMPLETED] * 3
            assert engine.fleet.pages_used == engine.load.running == 0

    run(body)


@pytest.mark.parametrize(("grace_s", "exact"), [(60.0, True), (0.2, False)])
def test_a_lost_video_goes_on_with_the_next_group(grace_s: float, exact: bool) -> None:
    """In 0.2 s the plan makes 5 blocks of each of two videos: an older one is restored from saved latents."""

    async def body() -> None:
        async with serving(Behaviour(block_s=0.001), recovery_grace_s=grace_s) as engine:
            video = await engine.open(ENDLESS)
            reader = video.read()
            before = await take(reader, 12)
            engine.workers.lose()
            assert video.status().state == VideoState.RECOVERING
            engine.workers.serve()
            after = await take(reader, 30)
            assert [one.block for one in before + after] == [*range(42)]
            assert [past.exact for past in video.status().recoveries] == [exact]
            assert engine.load.restarts == 1
            await video.stop()

    run(body)


def test_no_group_comes_any_more() -> None:
    async def body() -> None:
        async with serving(Behaviour(block_s=60.0)) as engine:
            video = await engine.open(ENDLESS)
            engine.workers.fail(StartError("lost too often"))
            with pytest.raises(WorkerLost, match="lost too often"):
                await read(video)
            with pytest.raises(StartError):
                await engine.wait_ready()

    run(body)


def test_closing_waits_for_no_block() -> None:
    async def body() -> None:
        async with serving(Behaviour(block_s=60.0), max_videos=1) as engine:
            video, next_one = await engine.open(ENDLESS), await engine.open(ENDLESS)
            while engine.fleet.pages_used == 0:  # its open ticket passes; its first block is next
                await asyncio.sleep(0)
            await video.stop()
            assert (video.end_reason, await read(video)) == (EndReason.CANCELLED, [])
            assert next_one.status().state == VideoState.RUNNING
            await next_one.stop()
            assert engine.fleet.pages_used == 0

    run(body)


def test_a_video_waits_in_the_queue_until_its_prompt_is_embedded() -> None:
    async def body() -> None:
        async with serving(Behaviour(holds_prompts=True)) as engine:
            video = await engine.open(REQUEST)
            await asyncio.sleep(0.01)
            assert video.status().state == VideoState.QUEUED
            engine.workers.answer_prompts()
            assert len(await read(video)) == NUM_BLOCKS

    run(body)
