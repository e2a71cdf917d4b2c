"""Decodes one picture or clip of a stranger, in a process of its own that may take little and reach nothing.

    python -I decode_child.py WIDTH HEIGHT FPS MOST_FRAMES < media > answer

The answer is a line of JSON, then pixels: RGB, a byte a value, frames scaled and cropped around their centre to WIDTH x
HEIGHT. ``{"frames": N}`` comes before pixels, ``{"error": "..."}`` alone. A clip gives its last frames, as many as are
wanted, at FPS frames a second. Imports nothing of this project: it is run as a file.
"""

import io
import json
import resource
import signal
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import av
import av.subtitles.stream  # av imports it when it opens a file, and then no file can be opened any more
import numpy as np

MEMORY_BYTES = 2 * 2**30
CPU_S = 10
PIXELS_MAX = 50_000_000
"""Of a frame."""
STILLS = {b"\xff\xd8\xff": ("jpeg_pipe", "mjpeg"), b"\x89PNG\r\n\x1a\n": ("png_pipe", "png")}
CLIP_CODECS = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9"})
RUN_IN_S = 1.0
"""A clip is decoded from so much before what is wanted of it."""


class Unreadable(Exception):
    """The media cannot be taken; the message says why."""


def main(arguments: list[str]) -> None:
    """Bound this process, then answer."""
    width_px, height_px, fps, most_frames = map(int, arguments)
    _bound()
    media = sys.stdin.buffer.read()
    try:
        frames = decode(media, width_px, height_px, fps, most_frames)
    except Unreadable as error:
        _say({"error": str(error)})
        return
    except (av.FFmpegError, ValueError, MemoryError) as error:
        _say({"error": f"it is damaged, or too large to decode ({type(error).__name__})"})
        return
    _say({"frames": len(frames)})
    for frame_YXC in frames:
        sys.stdout.buffer.write(frame_YXC.tobytes())
    sys.stdout.buffer.flush()


def _bound() -> None:
    """No more memory, time or files than these; out of time, the process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(what, (limit, limit))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def decode(media: bytes, width_px: int, height_px: int, fps: int, most_frames: int) -> list[np.ndarray]:
    """The frames, [Y, X, 3] each. Raises ``Unreadable``, or what the decoder raises."""
    container_format, codecs = _kind_of(media)
    with av.open(io.BytesIO(media), "r", format=container_format, options={"protocol_whitelist": "none"}) as container:
        if not container.streams.video:
            raise Unreadable("it holds no picture")
        stream = container.streams.video[0]
        name = stream.codec_context.name
        if name not in codecs:
            raise Unreadable(f"its codec {name} is not taken; send H.264, HEVC, VP9 or AV1")
        _require_size(stream.codec_context.width, stream.codec_context.height)
        is_still = codecs is not CLIP_CODECS
        strictness = {"err_detect": "explode"} if is_still else {}  # else half of a picture is grey and no error
        stream.codec_context.options = {"max_pixels": str(PIXELS_MAX), **strictness}
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        if is_still:
            return [_fitted(next(_frames(container)), width_px, height_px)]
        return _last_frames(container, (width_px, height_px), fps, most_frames)


def _kind_of(media: bytes) -> tuple[str, frozenset[str]]:
    """The container's format and the codecs that may be in it, by how the media begins."""
    for start, (container_format, codec) in STILLS.items():
        if media.startswith(start):
            return container_format, frozenset({codec})
    if media[:4] == b"RIFF" and media[8:12] == b"WEBP":
        return "webp_pipe", frozenset({"webp"})
    if media[4:8] == b"ftyp":
        return "mp4", CLIP_CODECS
    raise Unreadable("it is no JPEG, PNG, WebP or MP4")


def _require_size(width_px: int, height_px: int) -> None:
    if width_px * height_px > PIXELS_MAX:
        raise Unreadable(f"it is {width_px}x{height_px}; at most {PIXELS_MAX // 1_000_000} megapixels are taken")


def _frames(container: Any) -> Iterator[Any]:
    num_frames = 0
    for frame in container.decode(video=0):
        _require_size(frame.width, frame.height)
        num_frames += 1
        yield frame
    if num_frames == 0:
        raise Unreadable("it holds no picture")


def _last_frames(container: Any, size_px: tuple[int, int], fps: int, most_frames: int) -> list[np.ndarray]:
    """At most so many frames that end with the clip's last one, at equal distances in time."""
    if container.duration is not None:
        begin_s = container.duration / 1e6 - most_frames / fps - RUN_IN_S
        if begin_s > 0:
            container.seek(int(begin_s * 1e6) + (container.start_time or 0), backward=True)
    kept: deque[tuple[float, np.ndarray]] = deque()
    last_frame, last_s = None, 0.0
    for frame in _frames(container):
        time_s = last_s if frame.time is None else float(frame.time)
        if not kept or time_s >= kept[-1][0] + 0.5 / fps:
            kept.append((time_s, _fitted(frame, *size_px)))
            last_frame = None
        else:
            last_frame = frame
        last_s = time_s
        while kept[0][0] < time_s - (most_frames + 1) / fps:
            kept.popleft()
    if last_frame is not None:
        kept.append((last_s, _fitted(last_frame, *size_px)))
    return _at_rate(list(kept), fps, most_frames)


def _at_rate(kept: list[tuple[float, np.ndarray]], fps: int, most_frames: int) -> list[np.ndarray]:
    """Frames at a rate, the last one kept."""
    first_s, end_s = kept[0][0], kept[-1][0]
    count = min(most_frames, int((end_s - first_s) * fps + 1e-6) + 1)
    moments = [end_s - index / fps for index in reversed(range(count))]
    chosen, at = [], 0
    for moment in moments:
        while at + 1 < len(kept) and abs(kept[at + 1][0] - moment) <= abs(kept[at][0] - moment):
            at += 1
        chosen.append(kept[at][1])
    return chosen


def _fitted(frame: Any, width_px: int, height_px: int) -> np.ndarray:
    """The frame as it is to be seen: turned upright, scaled to cover the size, cropped around its centre."""
    turns = round(frame.rotation / 90) % 4
    across, up = (height_px, width_px) if turns % 2 else (width_px, height_px)
    scale = max(across / frame.width, up / frame.height)
    scaled_px = max(across, round(frame.width * scale)), max(up, round(frame.height * scale))
    picture_YXC = frame.reformat(*scaled_px, "rgba", interpolation="AREA").to_ndarray()
    left, top = (scaled_px[0] - across) // 2, (scaled_px[1] - up) // 2
    cropped_YXC = picture_YXC[top : top + up, left : left + across]
    opaque_YXC = (cropped_YXC[..., :3].astype(np.uint16) * cropped_YXC[..., 3:] + 127) // 255
    return np.ascontiguousarray(np.rot90(opaque_YXC.astype(np.uint8), turns))


if __name__ == "__main__":
    main(sys.argv[1:])
