"""The bytes of a video that outlived its worker or its whole engine, with the model that ships and the real encoder."""

import asyncio
import os
import signal
import time
from dataclasses import replace

import pytest

from engine import Engine, Fragment, Pace, PromptAt, Quality, VideoHandle, VideoRequest
from tests.front import making
from tests.kept import MemoryKept

pytestmark = pytest.mark.slow

REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="a red ball"),),
    width_px=96,
    height_px=96,
    fps=16,
    seconds=5.75,
    seed=7,
    pace=Pace.FAST,
    quality=Quality.HIGH,
)
NUM_BLOCKS = 8
CONFIG = making.config(poison_pages=True, recovery_grace_s=120.0)


async def begin(engine: Engine, kept: MemoryKept) -> VideoHandle:
    """Open the video, and change its prompt on the way."""
    video = await engine.open(REQUEST, None, keep=lambda _: kept)
    while video.kept.stop < 2:
        await video.changed()
    await video.change_prompt("a blue square")
    while video.kept.stop < max(block for block, _ in kept.prompts) + 1:
        await video.changed()
    return video


async def undisturbed(engine: Engine, kept: MemoryKept) -> MemoryKept:
    """The same video with the same prompts at the same blocks, made in one go."""
    expected = MemoryKept("b")
    (_, first), (block, second) = kept.prompts
    changed = PromptAt(at_s=kept.fragments[block].start_s, text=second)
    request = replace(REQUEST, prompts=(PromptAt(at_s=0, text=first), changed))
    await (await engine.open(request, None, keep=lambda _: expected)).freed()
    assert expected.prompts == kept.prompts and len(expected.fragments) == NUM_BLOCKS
    return expected


def assert_equal(kept: MemoryKept, expected: MemoryKept) -> None:
    assert kept.init_segment == expected.init_segment
    assert kept.fragments == expected.fragments
    assert all(one.exact for one in kept.recoveries) and 2 < kept.recoveries[0].block < NUM_BLOCKS


def test_a_restored_video_has_the_bytes_of_one_that_never_stopped() -> None:
    async def body() -> None:
        kept = MemoryKept("a")
        async with making.running(CONFIG) as engine:
            await begin(engine, kept)
        past = kept.past(REQUEST, engine.manifest.name, created_at=time.time())
        again = kept.reopened(past)
        engine = Engine(CONFIG)
        video = engine.restore(past, again)
        await engine.start()
        try:
            parts: list[Fragment] = [fragment async for fragment in video.read()]
            await video.freed()
            assert parts == again.fragments and again.prompts == kept.prompts
            assert_equal(again, await undisturbed(engine, again))
        finally:
            await engine.stop()

    asyncio.run(body())


def test_a_video_that_lost_its_worker_has_the_bytes_of_one_that_did_not() -> None:
    async def body() -> None:
        kept = MemoryKept("a")
        async with making.running(CONFIG) as engine:
            video = await begin(engine, kept)
            (pid,) = engine.fleet.worker_pids
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await video.freed()
            assert_equal(kept, await undisturbed(engine, kept))

    asyncio.run(body())
