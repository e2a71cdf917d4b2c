"""The wall clock jumps by days, back and forth, while videos are made: nothing is decided by it."""

import asyncio
import itertools
import time

import pytest

from engine import EngineState, Pace, PromptAt, VideoHandle, VideoRequest
from tests.instant import Behaviour, InstantEngine

REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"),), width_px=416, height_px=240, fps=16, seconds=4, pace=Pace.FAST
)
DAY_S = 86_400.0


async def read(video: VideoHandle) -> int:
    return len([fragment async for fragment in video.read()])


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    began_s, jumps = time.time(), itertools.cycle((0.0, DAY_S, -DAY_S))
    monkeypatch.setattr(time, "time", lambda: began_s + next(jumps))

    async def body() -> None:
        engine = InstantEngine(behaviour=Behaviour(block_s=0.01))
        await engine.start()
        videos = [await engine.open(REQUEST) for _ in range(3)]
        assert await asyncio.gather(*map(read, videos)) == [6] * 3
        for video in videos:
            status = video.status()
            assert status.ended_at is not None and 0 <= status.ended_at - status.created_at < 60
            assert engine.video(video.id) is not None, "an ended one is kept as long as ever"
        assert engine.state is EngineState.READY and engine.load.restarts == 0
        await engine.stop()

    asyncio.run(body())
