"""Videos that are kept, on instant workers: how tests make, read and end them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from engine import EngineConfig, Fragment, Happening, Pace, PastVideo, PromptAt, VideoHandle, VideoRequest
from tests.instant import MANIFEST, Behaviour, InstantEngine
from tests.kept import MemoryKept

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


@asynccontextmanager
async def serving(behaviour: Behaviour | None = None, **settings: Any) -> AsyncIterator[InstantEngine]:
    engine = InstantEngine(EngineConfig(manifest=MANIFEST, **settings), behaviour)
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
