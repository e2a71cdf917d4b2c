"""Kills or stops every worker in turn while two viewers read, and tells what that cost them.

    python -m benchmarks.recovery
    python -m benchmarks.recovery --devices cpu,cpu --signals KILL --model models/tiny

Two endless realtime videos are read as latents. For every signal a fresh engine loses each of its workers once, with
time between to go on. One line a loss: how long until it was seen, until a new group served, and until the last of the
viewers had a new block. In the end the latents are compared with those of an undisturbed run: exit status 0 only if
nothing is missing, nothing came twice and all differ by at most 1e-4.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine import (
    Engine,
    EngineConfig,
    EngineState,
    HiarError,
    Output,
    Pace,
    PromptAt,
    VideoHandle,
    VideoRequest,
    read_manifest,
)
from engine.law.schedule import frames_before_block

TOLERANCE = 1e-4
NUM_VIEWERS = 2
STAGE_TIMEOUT_S = 3.0
POLL_S = 0.005


@dataclass
class Viewer:
    """One reader and what it has got."""

    video: VideoHandle
    blocks: list[bytes] = field(default_factory=list)
    last_at: float = 0.0

    async def read(self) -> None:
        """Take fragments until the video ends."""
        async for fragment in self.video.read():
            assert fragment.block == len(self.blocks), f"block {fragment.block} after {len(self.blocks)} blocks"
            self.blocks.append(fragment.data)
            self.last_at = time.monotonic()


@dataclass(frozen=True)
class Loss:
    """What the loss of one worker cost."""

    signal_name: str
    rank: int
    stages: str
    seen_s: float
    """From the signal until the engine knew."""
    serving_s: float
    """From the signal until the next group served."""
    stream_s: float
    """From the signal until every viewer had a new block."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="cpu,cpu,cpu,cpu,cpu", help="one worker a device (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="model folder (default: %(default)s)")
    parser.add_argument("--signals", default="KILL,STOP", help="signals to send (default: %(default)s)")
    parser.add_argument("--between-s", type=float, default=2.0, help="seconds between two losses (default: 2)")
    arguments = parser.parse_args()
    try:
        config = EngineConfig(
            manifest=read_manifest(arguments.model),
            devices=tuple(arguments.devices.split(",")),
            stage_timeout_s=STAGE_TIMEOUT_S,
            recovery_grace_s=600.0,
        )
        errors = [asyncio.run(disturb(config, name, arguments.between_s)) for name in arguments.signals.split(",")]
    except (HiarError, ValueError, AttributeError) as error:
        sys.exit(f"recovery: {error}")
    sys.exit(0 if max(errors) <= TOLERANCE else 1)


async def disturb(config: EngineConfig, signal_name: str, between_s: float) -> float:
    """Lose every worker once; returns the largest difference of the latents from an undisturbed run."""
    async with running(config) as engine:
        viewers, reading = await start_viewers(engine)
        for rank in range(len(engine.fleet.worker_pids)):
            await asyncio.sleep(between_s)
            loss = await lose(engine, viewers, rank, signal_name)
            print(
                f"SIG{loss.signal_name:5s} worker {loss.rank} ({loss.stages}): seen after {loss.seen_s:.2f} s, "
                f"serving after {loss.serving_s:.2f} s, all streams go on after {loss.stream_s:.2f} s",
                flush=True,
            )
        await asyncio.sleep(between_s)
        for viewer in viewers:
            await viewer.video.stop()
        await asyncio.gather(*reading)
    for viewer in viewers:
        status = viewer.video.status()
        ways = ", ".join("exact" if past.exact else "approximate" for past in status.recoveries)
        print(
            f"  {len(viewer.blocks)} blocks, {len(status.recoveries)} recoveries ({ways}), {status.num_stalls} stalls"
        )
    worst = max([error async for error in differences(config, viewers)])
    print(f"  largest difference from an undisturbed run: {worst:.3e}")
    return worst


async def lose(engine: Engine, viewers: list[Viewer], rank: int, signal_name: str) -> Loss:
    """Send the signal and wait until everything goes on."""
    pid, facts = engine.fleet.worker_pids[rank], engine.fleet.facts
    assert pid is not None and facts is not None
    stages = " ".join(facts.plan.placements[rank].names)
    began = time.monotonic()
    os.kill(pid, getattr(signal, f"SIG{signal_name}"))
    while engine.state == EngineState.READY:
        await asyncio.sleep(POLL_S)
    seen = time.monotonic()
    await engine.wait_ready()
    serving = time.monotonic()
    while any(viewer.last_at < serving for viewer in viewers):
        await asyncio.sleep(POLL_S)
    going = max(viewer.last_at for viewer in viewers)
    return Loss(signal_name, rank, stages, seen - began, serving - began, going - began)


async def start_viewers(engine: Engine) -> tuple[list[Viewer], list[asyncio.Task[None]]]:
    """Open the videos and read them."""
    viewers = [Viewer(await engine.open(request)) for request in requests(engine.manifest.video.sizes[-1])]
    return viewers, [asyncio.create_task(viewer.read()) for viewer in viewers]


def requests(size_px: tuple[int, int]) -> Iterator[VideoRequest]:
    """Endless videos with different seeds."""
    for seed in range(NUM_VIEWERS):
        yield VideoRequest(
            prompts=(PromptAt(at_s=0, text="a red ball"), PromptAt(at_s=2, text="a blue ball")),
            width_px=size_px[0],
            height_px=size_px[1],
            fps=8,
            seed=seed,
            output=Output.LATENTS,
        )


async def differences(config: EngineConfig, viewers: list[Viewer]) -> AsyncIterator[float]:
    """Of each viewer's latents from those of an engine that nothing happens to."""
    async with running(config) as engine:
        for viewer in viewers:
            request = viewer.video.request
            seconds = frames_before_block(config.manifest.rollout, len(viewer.blocks)) / request.fps
            video = await engine.open(replace(request, seconds=seconds, pace=Pace.FAST))
            expected = b"".join([fragment.data async for fragment in video.read()])
            got = b"".join(viewer.blocks)
            assert len(got) == len(expected), f"{len(got)} bytes of latents, expected {len(expected)}"
            pair = [torch.frombuffer(bytearray(data), dtype=torch.float32) for data in (got, expected)]
            yield float((pair[0] - pair[1]).abs().max())


@asynccontextmanager
async def running(config: EngineConfig) -> AsyncIterator[Engine]:
    """An engine that is ready."""
    engine = Engine(config)
    await engine.start()
    try:
        await engine.wait_ready()
        yield engine
    finally:
        await engine.stop()


if __name__ == "__main__":
    main()
