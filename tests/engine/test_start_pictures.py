"""The small model from a picture and from a clip: real workers, encoder, decoder and H.264."""

import asyncio
import io
import os
import signal
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import av
import numpy as np
import pytest

from engine import Engine, EngineConfig, Pace, Pixels, PromptAt, Quality, RequestError, VideoRequest, read_manifest
from training.render import render
from training.world import draw_scene

pytestmark = pytest.mark.slow

SIZE_PX, FPS, GIVEN = 128, 16, 33
"""A clip gives three blocks of the small model: 9, 12 and 12 frames."""
PROMPT = "A video of a medium yellow disc drifting towards the right steadily over the sand."
TRUTH = render(draw_scene(np.random.default_rng(3)), 40, 80, SIZE_PX)
"""What PROMPT tells, long enough for what comes behind the clip."""
Result = TypeVar("Result")
MANIFEST = read_manifest(Path(__file__).parents[2] / "models" / "tiny")


def request(frames: np.ndarray, size_px: int = SIZE_PX) -> VideoRequest:
    start = Pixels(num_frames=len(frames), width_px=SIZE_PX, height_px=SIZE_PX, data=frames.tobytes())
    return VideoRequest(
        prompts=(PromptAt(at_s=0, text=PROMPT),),
        width_px=size_px,
        height_px=size_px,
        fps=FPS,
        seconds=4.0,
        pace=Pace.FAST,
        quality=Quality.HIGH,
        start=start,
    )


class Site:
    """An engine on a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        # Which passes share a forward depends on when tickets come, and the bytes on how they are rounded together.
        self.engine = Engine(EngineConfig(manifest=MANIFEST, devices=("cpu",), max_segments=1))
        self.begin(self._start()).result(120)

    async def _start(self) -> None:
        await self.engine.start()
        await self.engine.wait_ready()

    def begin(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def make(self, wanted: VideoRequest) -> bytes:
        """The whole file."""
        video = await self.engine.open(wanted, None)
        await video.freed()
        assert video.failure is None and video.init_segment is not None
        return video.init_segment.data + b"".join(video.peek(block).data for block in video.kept)

    def close(self) -> None:
        self.begin(self.engine.stop()).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


def frames_of(file: bytes) -> np.ndarray:
    with av.open(io.BytesIO(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    squared = (one.astype(float) - other) ** 2
    return float(-10 * np.log10(squared.mean() / 255**2))


def test_a_video_begins_with_the_picture_and_goes_on_from_it(site: Site) -> None:
    picture = TRUTH[GIVEN - 1]
    frames = frames_of(site.begin(site.make(request(picture[None]))).result(60))
    assert len(frames) == 64
    assert min(psnr(frame, picture) for frame in frames[:9]) > 32, "not at the level of the decoder's own round trip"
    assert psnr(frames[9], picture) > 22 and psnr(frames[20], picture) > 19, "the picture is forgotten"
    assert psnr(frames[29], frames[8]) < 23, "nothing moves"


def test_a_clip_is_aligned_at_its_end_and_its_motion_goes_on(site: Site) -> None:
    assert site.engine.most_start_frames == GIVEN
    frames = frames_of(site.begin(site.make(request(TRUTH[:GIVEN]))).result(60))
    assert min(psnr(frames[index], TRUTH[index]) for index in range(GIVEN)) > 31
    assert min(psnr(frames[index], TRUTH[index]) for index in range(GIVEN, GIVEN + 24)) > 25, "it does not go on"
    assert psnr(frames[GIVEN + 23], TRUTH[GIVEN - 1]) < 23, "nothing moves"
    longer = frames_of(site.begin(site.make(request(TRUTH[:40]))).result(60))
    assert min(psnr(longer[index], TRUTH[index + 7]) for index in range(GIVEN)) > 31, "not its last frames"


def test_a_worker_lost_over_a_picture_is_replaced_and_the_bytes_are_the_same(site: Site) -> None:
    wanted = request(TRUTH[:1])
    first, again = (site.begin(site.make(wanted)).result(60) for _ in range(2))
    assert first == again
    (pid,) = site.engine.fleet.worker_pids
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # from here on it answers nothing
    waiting: Future[bytes] = site.begin(site.make(wanted))
    site.begin(asyncio.sleep(0)).result(5)
    os.kill(pid, signal.SIGKILL)
    assert waiting.result(120) == first
    assert site.engine.load.restarts == 1


def test_pictures_of_another_size_are_refused(site: Site) -> None:
    with pytest.raises(RequestError, match=r"the pictures are \(128, 128\), needed \(96, 96\)"):
        site.begin(site.make(request(TRUTH[:1], size_px=96))).result(5)
    spent = replace(request(TRUTH[:1]), start=Pixels(num_frames=1, width_px=SIZE_PX, height_px=SIZE_PX, data=b""))
    with pytest.raises(RequestError, match="is not kept any more"):
        site.begin(site.make(spent)).result(5)
