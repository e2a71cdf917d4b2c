"""How long a newcomer waits for its first block beside many videos: real workers and pipes, passes that sleep.

The others are videos of pace ``fast`` whose readers have stopped reading, so they wait, and everything they cost is the
front's. Their number must not make the newcomer wait (design, law 9).
"""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from engine import Engine, EngineConfig, Pace, PromptAt, VideoHandle, VideoRequest, read_manifest
from engine.engine_config import Rehearsal

MODEL = Path("models/tiny")
SIZE_PX = 96
PASS_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Median seconds from a request to its first block."""

    num_videos: int
    alone_s: float
    beside_s: float


async def measure(num_videos: int, rounds: int) -> Wait:
    """Ask so often for a video on an engine of its own, then again beside ``num_videos``."""
    manifest = read_manifest(MODEL)
    config = EngineConfig(
        manifest=replace(manifest, video=replace(manifest.video, sizes=((SIZE_PX, SIZE_PX),))),
        max_videos=num_videos + 1,
        max_queue=num_videos,
        backlog_limit_s=1.0,
        rehearsal=Rehearsal(pass_s=PASS_S, decode_s=PASS_S),
    )
    engine = Engine(config)
    await engine.start()
    try:
        await engine.wait_ready()
        alone_s = [await _first_block_s(engine) for _ in range(rounds)]
        others = [await engine.open(_request(Pace.FAST)) for _ in range(num_videos)]
        await _all_wait(others)
        await asyncio.sleep(num_videos * manifest.rollout.num_stages * PASS_S)  # cache passes that are still due
        beside_s = [await _first_block_s(engine) for _ in range(rounds)]
        await asyncio.gather(*(video.stop() for video in others))
    finally:
        await engine.stop()
    return Wait(num_videos=num_videos, alone_s=median(alone_s), beside_s=median(beside_s))


def sentence(wait: Wait) -> str:
    """For people."""
    return (
        f"A newcomer's first block, {PASS_S * 1e3:g} ms a pass, median: {wait.alone_s * 1e3:.0f} ms alone, "
        f"{wait.beside_s * 1e3:.0f} ms beside {wait.num_videos} videos whose readers have stopped "
        f"({wait.beside_s / wait.alone_s:.2f} times)."
    )


async def _first_block_s(engine: Engine) -> float:
    began_s = time.monotonic()
    video = await engine.open(_request(Pace.REALTIME))
    with video.read() as reader:
        await anext(reader)
    took_s = time.monotonic() - began_s
    await video.freed()
    return took_s


async def _all_wait(videos: list[VideoHandle]) -> None:
    """Return once each has made all that its reader lets it."""
    made = -1
    while made < (now := sum(video.kept.stop for video in videos)) or now < len(videos):
        made = now
        await asyncio.sleep(1.0)


def _request(pace: Pace) -> VideoRequest:
    return VideoRequest(
        prompts=(PromptAt(at_s=0, text="x"),), width_px=SIZE_PX, height_px=SIZE_PX, fps=16, seconds=None, pace=pace
    )
