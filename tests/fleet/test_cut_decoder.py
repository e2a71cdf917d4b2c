"""A decoder cut over worker processes: the same video as from one worker, through losses and beside other videos."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.true_shapes.folder import make_folder
from engine import Engine, EngineConfig, Fragment, Output, Pace, PromptAt, VideoHandle, VideoRequest, read_manifest
from engine.engine_config import Rehearsal
from tests.front.making import running

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

REHEARSED = EngineConfig(
    manifest=read_manifest(Path("models/tiny")),
    devices=("cpu",) * 4,
    max_videos=2,
    poison_pages=True,
    rehearsal=Rehearsal(pass_s=0.01, decode_s=0.24, num_decoder_units=8),
)
REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"),), width_px=128, height_px=128, fps=16, seconds=7, pace=Pace.FAST
)


async def read(video: VideoHandle) -> list[Fragment]:
    return [fragment async for fragment in video.read()]


def names(engine: Engine) -> list[str]:
    assert engine.fleet.facts is not None
    return [placement.names[-1] for placement in engine.fleet.facts.plan.placements]


def test_a_video_is_the_same_after_the_loss_of_each_part_and_beside_one_of_latents() -> None:
    async def video_of(config: EngineConfig, *lost: int) -> list[bytes]:
        async with running(config) as engine:
            if len(config.devices) > 1:
                assert names(engine)[1:] == ["decode[0]", "decode[1]", "decode[2]"]
            video = await engine.open(REQUEST)
            beside = asyncio.create_task(read(await engine.open(replace(REQUEST, output=Output.LATENTS))))
            reading = asyncio.create_task(read(video))
            for number, rank in enumerate(lost, 1):
                while video.kept.stop < 2 * number:
                    await asyncio.sleep(0.01)
                process = engine.fleet.worker_pids[rank]
                assert process is not None
                os.kill(process, signal.SIGKILL)
            fragments = await reading
            assert [fragment.block for fragment in fragments] == list(range(10))
            assert len(video.status().recoveries) == len(lost)
            assert len(await beside) == 10
            return [fragment.data for fragment in fragments]

    async def body() -> None:
        alone = await video_of(replace(REHEARSED, devices=("cpu",)))
        assert await video_of(REHEARSED, 1, 3) == alone

    asyncio.run(body())


def test_a_real_decoder_makes_the_same_pictures_on_three_workers(tmp_path: Path) -> None:
    make_folder(tmp_path / "micro", size="micro", random=True, random_text=True, say=lambda line: None)
    manifest = read_manifest(tmp_path / "micro")
    rollout = replace(manifest.rollout, denoising_steps=(1000,))
    config = EngineConfig(manifest=replace(manifest, rollout=rollout), max_videos=1, poison_pages=True)
    width_px, height_px = manifest.video.sizes[0]
    request = replace(REQUEST, width_px=width_px, height_px=height_px, seconds=2)

    async def pictures(devices: tuple[str, ...]) -> np.ndarray:
        async with running(replace(config, devices=devices)) as engine:
            if len(devices) > 1:
                assert {"decode[0]", "decode[1]"} <= set(names(engine))
            video = await engine.open(request)
            fragments = await read(video)
            assert video.init_segment is not None
            path = tmp_path / f"{len(devices)}.mp4"
            path.write_bytes(video.init_segment.data + b"".join(fragment.data for fragment in fragments))
        with av.open(path) as container:
            return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])

    one, three = asyncio.run(pictures(("cpu",))), asyncio.run(pictures(("cpu",) * 3))
    assert one.shape == three.shape and one.std() > 0
    assert np.abs(one.astype(int) - three).max() <= 3
