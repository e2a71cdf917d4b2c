"""Pictures and clips of strangers, decoded in child processes: never here, and only so many at once."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine import Pixels
from server.errors import INVALID_REQUEST, ApiError

AT_ONCE = 2
TIMEOUT_S = 30.0
"""Of one, by the clock; the child itself has less of the processor's time."""
_CHILD = Path(__file__).with_name("decode_child.py")
_LINE_BYTES_MAX = 4096


@dataclass(frozen=True)
class Media:
    """A picture or a clip as it came."""

    name: str
    """Of the field that it came in."""
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What it shall become."""

    width_px: int
    height_px: int
    fps: int
    most_frames: int


class MediaDecoder:
    """Decodes in child processes. Used on one event loop."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)

    async def decode(self, media: Media, wanted: Wanted) -> Pixels:
        """The frames, scaled and cropped: one of a picture, the last ones of a clip.

        Raises ``ApiError`` 400 that names the field where it is no media, damaged, too large or takes too long.
        """
        size = (wanted.width_px, wanted.height_px, wanted.fps, wanted.most_frames)
        async with self._room:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_CHILD), *map(str, size)), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}
            )
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await _answer_of(child, media, wanted)
            except TimeoutError:
                raise _refused(media, "it takes too long to decode") from None
            finally:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


async def _answer_of(child: Process, media: Media, wanted: Wanted) -> Pixels:
    assert child.stdin is not None and child.stdout is not None
    feeding = asyncio.create_task(_feed(child.stdin, media.data))
    try:
        line = await child.stdout.readline()
        answer = json.loads(line) if line.endswith(b"\n") else {"error": "it is too large or takes too long to decode"}
        if "error" in answer:
            raise _refused(media, str(answer["error"]))
        num_frames = min(int(answer["frames"]), wanted.most_frames)
        data = await child.stdout.readexactly(3 * num_frames * wanted.width_px * wanted.height_px)
    except asyncio.IncompleteReadError:
        raise _refused(media, "it is too large or takes too long to decode") from None
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding
    return Pixels(num_frames=num_frames, width_px=wanted.width_px, height_px=wanted.height_px, data=data)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    """All of it, and the end. A child that is gone says so by its own end."""
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
        stdin.close()


def _refused(media: Media, why: str) -> ApiError:
    return ApiError(INVALID_REQUEST, f"{media.name}: this cannot be taken: {why}", param=media.name)
