"""Media of strangers in a child process: what comes out of good media, and that bad media costs an error at most."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from engine import Pixels
from server.errors import ApiError
from server.videos import decode_child, decoding
from server.videos.decoding import Media, MediaDecoder, Wanted
from tests.server.media import NO_MEDIA, STILLS, clip, gradient, greys, huge_png, still


def decode(data: bytes, width_px: int = 64, height_px: int = 64, fps: int = 16, most_frames: int = 33) -> Pixels:
    wanted = Wanted(width_px=width_px, height_px=height_px, fps=fps, most_frames=most_frames)
    return asyncio.run(MediaDecoder().decode(Media("image", data), wanted))


def frames_of(pixels: Pixels) -> np.ndarray:
    shape = pixels.num_frames, pixels.height_px, pixels.width_px, 3
    return np.frombuffer(pixels.data, np.uint8).reshape(shape)


@pytest.mark.parametrize("codec", STILLS)
def test_a_picture_is_scaled_and_cropped_around_its_centre(codec: str) -> None:
    (picture,) = frames_of(decode(still(gradient(256, 128), codec))).astype(int)
    assert abs(picture[:, 0, 0].mean() - 64) < 4 and abs(picture[:, -1, 0].mean() - 191) < 4, "cropped elsewhere"
    assert picture[0, :, 1].mean() < 6 and picture[-1, :, 1].mean() > 245, "not all of its height"
    tall = frames_of(decode(still(gradient(256, 128), codec), width_px=32, height_px=96))
    assert tall.shape == (1, 96, 32, 3)


def brightness(pixels: Pixels) -> list[int]:
    return frames_of(pixels)[:, 32, 32, 1].astype(int).tolist()


def expect(pixels: Pixels, numbers: list[int]) -> None:
    """Frames of ``greys``; 4:2:0 rounds them a little."""
    found = brightness(pixels)
    assert len(found) == len(numbers)
    assert all(abs(value - 7 * number % 256) <= 2 for value, number in zip(found, numbers, strict=True)), found


def test_a_clip_gives_its_last_frames() -> None:
    expect(decode(clip(greys(10), 16)), list(range(10)))
    expect(decode(clip(greys(40), 16), most_frames=33), list(range(7, 40)))
    expect(decode(clip(greys(200), 16), most_frames=9), list(range(191, 200)))


def test_a_clip_is_brought_to_the_videos_rate() -> None:
    expect(decode(clip(greys(33), 32), most_frames=9), list(range(16, 33, 2)))
    expect(decode(clip(greys(9), 8), fps=16), [(index + 1) // 2 for index in range(17)])


@pytest.mark.parametrize("options", [{"bf": "2", "g": "250"}, {"bf": "0", "g": "10"}])
def test_clips_with_reordered_and_with_far_keyframes(options: dict[str, str]) -> None:
    expect(decode(clip(greys(60), 16, options={"crf": "10", **options}), most_frames=9), list(range(51, 60)))


BROKEN = {
    "half a PNG": still(gradient(200, 200))[:400],
    "half a JPEG": still(gradient(200, 200), "mjpeg")[:-900],
    "half a WebP": still(gradient(200, 200), "libwebp")[:-400],
    "an MP4 without its index": clip(greys(30), 16)[:900],
    "a codec that is not taken": clip(greys(10), 16, "mpeg4"),
}


@pytest.fixture(autouse=True)
def no_child_is_left_behind() -> Iterator[None]:
    """Other tests of this process may have children of their own, as the process that workers are forked from."""
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before, "a child was left behind"


@pytest.mark.parametrize("data", [*NO_MEDIA.values(), *BROKEN.values()], ids=[*NO_MEDIA, *BROKEN])
def test_what_cannot_be_read_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ApiError, match=r"^image: this cannot be taken: its? ") as caught:
        decode(data)
    assert (caught.value.row.status, caught.value.param) == (400, "image")


def test_just_small_enough_is_taken() -> None:
    assert decode(huge_png(7000, 7000)).num_frames == 1


def test_a_child_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TIMEOUT_S", 0.01)
    with pytest.raises(ApiError, match="takes too long to decode"):
        decode(still(gradient(64, 64)))


TRIES = """
import json, resource, runpy, socket, sys
child = runpy.run_path(sys.argv[1])
child["_bound"]()
failed = []
for attempt in (lambda: open("/etc/passwd"), socket.socket, lambda: bytearray(3 << 30)):
    try:
        attempt()
    except (OSError, MemoryError) as error:
        failed.append(type(error).__name__)
print(json.dumps([failed, resource.getrlimit(resource.RLIMIT_CPU)[0]]))
"""


def test_the_child_can_open_no_file_and_reach_no_address() -> None:
    command = [sys.executable, "-I", "-c", TRIES, decode_child.__file__]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert json.loads(told) == [["OSError", "OSError", "MemoryError"], decode_child.CPU_S]
