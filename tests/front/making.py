"""Videos, plans, logs and engines for tests of the front."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import Engine, Observer
from engine.config import RolloutConfig
from engine.engine_config import EngineConfig, Keep
from engine.front.log import BlockLog, MemoryStore
from engine.front.pacing import Progress
from engine.front.video import Video, VideoState
from engine.law.placement import PassCosts, Plan, place
from engine.law.window import writes_pages
from engine.manifest import read_manifest
from engine.messages import LatentsSaved
from engine.request import Fragment, Pace, PromptAt, TensorBytes, VideoRequest

TINY = read_manifest(Path("models/tiny"))
KEEP_ALL = Keep()


def config(rollout: RolloutConfig = TINY.rollout, **settings: Any) -> EngineConfig:
    return EngineConfig(manifest=replace(TINY, rollout=rollout), **settings)


def plan(num_devices: int = 1, block_s: float = 0.25) -> Plan:
    """All devices in chains as the planner makes them; a chain of one device needs ``block_s`` a block."""
    each_s = block_s / TINY.rollout.num_stages
    costs = PassCosts(denoise_s=tuple(each_s * count for count in range(1, 5)), decode_s=0.0)
    return place(TINY.rollout, ("cpu",) * num_devices, costs)


def request(
    pace: Pace = Pace.REALTIME, *, size_px: int = 128, fps: int = 16, seconds: float | None = None, priority: int = 0
) -> VideoRequest:
    return VideoRequest(
        prompts=(PromptAt(at_s=0, text="x"),),
        width_px=size_px,
        height_px=size_px,
        fps=fps,
        seconds=seconds,
        pace=pace,
        priority=priority,
    )


class Silence:
    """A bell for videos that nobody waits for."""

    def ring(self) -> None:
        pass

    async def rung(self) -> None:
        raise AssertionError("somebody waits")


def video(
    name: str,
    wanted: VideoRequest | None = None,
    *,
    chain: int | None = None,
    done: int = 0,
    linger_s: float | None = 0.0,
    rollout: RolloutConfig = TINY.rollout,
) -> Video:
    """A video that runs on a chain, or waits in the queue when that is None."""
    progress = Progress(request=wanted or request(), rollout=rollout, opened_at=100.0, issued=done, done=done)
    made = Video(name, progress, Silence(), log(name, rollout), linger_s=linger_s, created_at=0.0)
    if chain is not None:
        made.move(VideoState.RUNNING)
        made.chain = chain
    return made


def embedding(text: str) -> TensorBytes:
    """An embedding that can be told from others."""
    return TensorBytes(dtype="uint8", shape=(len(text),), data=text.encode())


def latents(block: int, stage: int) -> LatentsSaved:
    """What the cache pass of a block in a stage reads."""
    return LatentsSaved(video="a", block=block, stage=stage, latents=embedding(f"{block}.{stage}"))


def log(
    name: str = "a",
    rollout: RolloutConfig = TINY.rollout,
    keep: Keep = KEEP_ALL,
    *,
    num_given: int = 0,
    before: int = 0,
) -> BlockLog:
    """An empty log in memory."""
    return BlockLog(name, rollout, keep, MemoryStore(), num_given=num_given, before=before)


def prepared_log(rollout: RolloutConfig = TINY.rollout, *prompts: int) -> BlockLog:
    """A log with a prompt at block 0 and at each of ``prompts``."""
    made = log(rollout=rollout)
    for block in (0, *prompts):
        made.set_prompt(block, f"prompt {block}", embedding(f"prompt {block}"))
    return made


def save_blocks(one: BlockLog, blocks: range, rollout: RolloutConfig = TINY.rollout) -> None:
    """Save what all stages' cache passes of some blocks read."""
    for block in blocks:
        for stage in range(rollout.num_stages):
            if writes_pages(rollout, stage):
                one.save(latents(block, stage))


def fragment(block: int, num_bytes: int = 10, block_s: float = 0.75) -> Fragment:
    """A fragment that can be told from others."""
    data = block.to_bytes(4, "big") + bytes(num_bytes - 4)
    return Fragment(block=block, data=data, num_frames=12, start_s=block * block_s, duration_s=block_s)


@asynccontextmanager
async def running(config: EngineConfig, observer: Observer | None = None) -> AsyncIterator[Engine]:
    """An engine that is ready."""
    engine = Engine(config, observer=observer)
    await engine.start()
    try:
        await engine.wait_ready()
        yield engine
    finally:
        await engine.stop()
