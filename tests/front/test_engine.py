"""The engine with a real worker process and the model that ships."""

import asyncio
import hashlib
import io
import shutil
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import av
import psutil
import pytest

from engine import (
    EndReason,
    Engine,
    EngineConfig,
    EngineState,
    EngineUnavailable,
    Output,
    Overloaded,
    Pace,
    PromptAt,
    RequestError,
    StartError,
    UnknownVideo,
    VideoHandle,
    VideoRequest,
    VideoState,
    WeightsError,
    read_manifest,
)
from tests.front import making

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]

TINY = Path("models/tiny")
REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="a red ball"),),
    width_px=96,
    height_px=96,
    fps=16,
    seconds=3,
    seed=11,
    pace=Pace.FAST,
    output=Output.LATENTS,
)
ENDLESS = replace(REQUEST, seconds=None)


@pytest.fixture(scope="module", autouse=True)
def text_encoder_is_imported_once() -> None:
    """Have workers forked from a process that holds it: one that other tests' engines had made would not."""
    forkserver._forkserver._stop()


def running(max_videos: int = 2, max_queue: int = 8) -> AbstractAsyncContextManager[Engine]:
    return making.running(making.config(poison_pages=True, max_videos=max_videos, max_queue=max_queue))


async def read(video: VideoHandle) -> list[bytes]:
    return [fragment.data async for fragment in video.read()]


async def first_fragment(video: VideoHandle) -> None:
    async for _ in video.read():
        return


def digest(blocks: list[bytes]) -> str:
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def test_one_seed_gives_one_video_in_two_runs_two_videos_and_two_processes() -> None:
    async def twice_in_one_process() -> list[str]:
        async with running() as engine:
            alone = digest(await read(await engine.open(REQUEST)))
            both = await asyncio.gather(*[read(await engine.open(REQUEST)) for _ in range(2)])
            other = digest(await read(await engine.open(replace(REQUEST, seed=12))))
            assert other != alone
            return [alone, *map(digest, both)]

    first, second = asyncio.run(twice_in_one_process()), asyncio.run(twice_in_one_process())
    assert len({*first, *second}) == 1


def test_a_timed_prompt_changes_the_video_from_its_block_on() -> None:
    async def body() -> None:
        later = (PromptAt(at_s=0, text="a red ball"), PromptAt(at_s=1.3, text="a blue square"))
        async with running() as engine:
            plain = await read(await engine.open(REQUEST))
            changed = await read(await engine.open(replace(REQUEST, prompts=later)))
        # blocks start at 0, 0.5625, 1.3125, 2.0625 s: the change holds from block 2 on
        assert plain[:2] == changed[:2] and plain[2] != changed[2]

    asyncio.run(body())


def test_a_prompt_change_before_the_start_replaces_the_first_prompt() -> None:
    async def body() -> None:
        blue = replace(REQUEST, prompts=(PromptAt(at_s=0, text="a blue square"),))
        async with running() as engine:
            expected = await read(await engine.open(blue))
            video = await engine.open(REQUEST)
            assert await video.change_prompt("a blue square") == 0
            assert await read(video) == expected

    asyncio.run(body())


def test_closing_frees_the_pages_every_time() -> None:
    async def body() -> None:
        async with running(max_videos=1, max_queue=0) as engine:
            for _ in range(8):
                video = await engine.open(ENDLESS)
                await first_fragment(video)
                began = time.monotonic()
                await video.stop()
                assert time.monotonic() - began < 2
                assert engine.load.running == 0 and video.end_reason == EndReason.CANCELLED
                assert engine.video(video.id).status().state == VideoState.ENDED
                await video.forget()
                with pytest.raises(UnknownVideo):
                    engine.video(video.id)

    asyncio.run(body())


def test_overload_is_refused_and_the_queue_is_served_in_turn() -> None:
    async def body() -> None:
        async with running(max_videos=1, max_queue=1) as engine:
            first, second = await engine.open(ENDLESS), await engine.open(REQUEST)
            await first_fragment(first)
            assert second.status().queue_position == 1
            with pytest.raises(Overloaded) as refusal:
                await engine.open(REQUEST)
            assert refusal.value.retry_after_s >= 1
            await first.stop()
            assert len(await read(second)) == 5
            assert second.end_reason == EndReason.COMPLETED

    asyncio.run(body())


def test_what_the_model_does_not_make_is_refused_by_field() -> None:
    async def body() -> None:
        async with running() as engine:
            with pytest.raises(RequestError, match=r"size: 64x64 is not offered; choose .*128x128") as refusal:
                await engine.open(replace(REQUEST, width_px=64, height_px=64))
            assert refusal.value.param == "size"
            with pytest.raises(RequestError, match="fps: 61 is above") as refusal:
                await engine.open(replace(REQUEST, fps=61))
            assert refusal.value.param == "fps"

    asyncio.run(body())


def test_draining_ends_videos_at_a_block_boundary() -> None:
    async def body() -> None:
        async with running(max_videos=1) as engine:
            video, queued = await engine.open(ENDLESS), await engine.open(REQUEST)
            reading = asyncio.create_task(read(video))
            while video.kept.stop < 2:
                await asyncio.sleep(0.01)
            await engine.drain()
            assert len(await reading) >= 2 and video.end_reason == EndReason.DRAIN
            with pytest.raises(EngineUnavailable):
                await read(queued)
            with pytest.raises(EngineUnavailable):
                await engine.open(REQUEST)

    asyncio.run(body())


def test_stopping_leaves_no_process() -> None:
    async def body() -> tuple[int | None, ...]:
        async with running() as engine:
            return engine.fleet.worker_pids

    (pid,) = asyncio.run(body())
    assert pid is not None and not psutil.pid_exists(pid)


@pytest.mark.parametrize("part", ["transformer.safetensors", "decoder.safetensors", "text_encoder.safetensors"])
@pytest.mark.parametrize("harm", ["absent", "truncated"])
def test_a_harmed_weight_file_stops_the_start_and_is_named(tmp_path: Path, part: str, harm: str) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    file = folder / part
    if harm == "absent":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1000])

    async def body() -> None:
        engine = Engine(EngineConfig(manifest=read_manifest(folder)))
        await engine.start()
        try:
            with pytest.raises(WeightsError, match=part):
                await engine.wait_ready()
            assert engine.state == EngineState.FAILED
        finally:
            await engine.stop()

    asyncio.run(body())


def test_a_device_that_is_not_there_stops_the_start() -> None:
    async def body() -> None:
        engine = Engine(EngineConfig(manifest=read_manifest(TINY), devices=("cuda:31",)))
        await engine.start()
        try:
            with pytest.raises(StartError, match="cuda:31"):
                await engine.wait_ready()
        finally:
            await engine.stop()

    asyncio.run(body())


def test_a_video_that_slept_goes_on_as_if_nothing_had_happened() -> None:
    async def main() -> None:
        config = making.config(poison_pages=True, max_videos=1, pause_hold_s=0.05)
        async with making.running(config) as engine:
            undisturbed = await read(await engine.open(REQUEST))
            video = await engine.open(REQUEST)
            reader = video.read()
            blocks = [(await anext(reader)).data]
            video.pause()
            while video.status().state != VideoState.SLEEPING:
                await video.changed()
            other = await engine.open(replace(REQUEST, seed=12))
            assert await read(other) != undisturbed, "others may have its place"
            video.resume()
            assert blocks + [fragment.data async for fragment in reader] == undisturbed
            [recovery] = video.status().recoveries
            assert recovery.exact and 1 <= recovery.block < len(undisturbed)

    asyncio.run(main())


def test_an_extended_video_shows_what_a_longer_one_would_have_shown() -> None:
    """3 s end in the middle of a block: its rest is block 0 of what goes on."""

    async def main() -> None:
        async with making.running(making.config(poison_pages=True, max_videos=1)) as engine:
            prompts = (*REQUEST.prompts, PromptAt(at_s=1.2, text="a blue square"))
            request = replace(REQUEST, prompts=prompts)
            first = await engine.open(request)
            shown = await read(first)
            whole = await read(await engine.open(replace(request, seconds=5)))
            more = await read(await engine.open(first.extended(2.0, None, "")))
            assert shown + more[1:] == whole and more[0] == shown[-1]
            other = await read(await engine.open(first.extended(2.0, "a green star", "")))
            assert other[0] == more[0] and other[1] != more[1]

    asyncio.run(main())


def test_an_extended_video_has_pictures_from_its_first_frame_on() -> None:
    async def main() -> None:
        async with making.running(making.config(max_videos=1)) as engine:
            first = await engine.open(replace(REQUEST, output=Output.FRAGMENTS, seconds=1.5))
            await read(first)
            more = await engine.open(first.extended(1.0, None, ""))
            fragments = [fragment async for fragment in more.read()]
            assert sum(fragment.num_frames for fragment in fragments) == 16 and fragments[0].num_frames == 33 - 24
            assert more.init_segment is not None
            film = more.init_segment.data + b"".join(fragment.data for fragment in fragments)
            with av.open(io.BytesIO(film)) as container:
                times = [frame.time for frame in container.decode(video=0)]
            assert times == [pytest.approx(at / 16) for at in range(16)]

    asyncio.run(main())
