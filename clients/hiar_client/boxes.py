"""Cuts a byte stream into MP4 boxes and reads the few numbers that a client shows.

Knows no HTTP and decodes no pictures. Chunk edges mean nothing: a box may arrive in any number of pieces.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIGNAL_UUID = bytes.fromhex("6b1f0c5e92d84f3a8e47a1c0d95b7e26")
"""Type of the server's own ``uuid`` boxes."""

BOX_BYTES_MAX = 256 * 1024 * 1024
_TFHD_OPTIONAL = ((0x000001, 8), (0x000002, 4))
"""Flags and sizes of the ``tfhd`` fields that stand before the default duration."""
_TFHD_DURATION = 0x000008
_TRUN_OFFSET, _TRUN_FIRST_FLAGS = 0x000001, 0x000004
_TRUN_DURATION = 0x000100
_TRUN_OTHERS = (0x000200, 0x000400, 0x000800)


class NotMp4(ValueError):
    """The bytes are not a sequence of boxes."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """One whole box."""

    kind: str
    data: bytes
    """All of it, header included."""
    body_at: int
    """Where the header ends."""

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[self.body_at :]


class BoxSplitter:
    """Collects bytes and hands out boxes as they become whole."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """Bytes of a box that is not whole yet."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[Box]:
        """Add bytes and yield each box that they complete. Raises ``NotMp4``."""
        self._held += data
        while (header := _header(self._held)) is not None:
            kind, size, body_at = header
            if len(self._held) < size:
                return
            box = Box(kind=kind, data=bytes(self._held[:size]), body_at=body_at)
            del self._held[:size]
            yield box


def split(data: bytes) -> Iterator[Box]:
    """Yield the boxes of whole bytes, such as the body of a container box."""
    return BoxSplitter().feed(data)


def signal(box: Box) -> dict[str, Any] | None:
    """The payload of one of the server's own boxes; None for any other box."""
    if box.kind != "uuid" or box.body[:16] != SIGNAL_UUID:
        return None
    payload = json.loads(box.body[16:])
    return payload if isinstance(payload, dict) else None


def timescale(moov: Box) -> int:
    """Ticks a second of the first track."""
    body = _inside(moov, "trak", "mdia", "mdhd").body
    at = 20 if body[0] == 1 else 12
    return int(struct.unpack_from(">I", body, at)[0])


def default_ticks(moov: Box) -> int:
    """Ticks of a frame that says nothing about itself."""
    return int(struct.unpack_from(">I", _inside(moov, "mvex", "trex").body, 12)[0])


def fragment_length(moof: Box, default: int) -> tuple[int, int]:
    """(frames, ticks) of a fragment. ``default`` is what ``default_ticks`` gave."""
    track = _inside(moof, "traf")
    ticks = _fragment_default(_inside(track, "tfhd").body, default)
    return _run_length(_inside(track, "trun").body, ticks)


def _header(held: bytearray) -> tuple[str, int, int] | None:
    """(kind, size, header size) of the box at the front; None while too little of it is there."""
    if len(held) < 8:
        return None
    size, kind = struct.unpack_from(">I4s", held)
    body_at = 8
    if size == 1:
        if len(held) < 16:
            return None
        size, body_at = struct.unpack_from(">Q", held, 8)[0], 16
    if not body_at <= size <= BOX_BYTES_MAX or not kind.isascii():
        raise NotMp4(f"{kind!r} with size {size} is not a box")
    return kind.decode("ascii"), size, body_at


def _inside(box: Box, *path: str) -> Box:
    for kind in path:
        found = next((inner for inner in split(box.body) if inner.kind == kind), None)
        if found is None:
            raise NotMp4(f"there is no {kind!r} in {box.kind!r}")
        box = found
    return box


def _fragment_default(tfhd: bytes, default: int) -> int:
    flags = struct.unpack_from(">I", tfhd)[0] & 0xFFFFFF
    if not flags & _TFHD_DURATION:
        return default
    at = 8 + sum(size for flag, size in _TFHD_OPTIONAL if flags & flag)
    return int(struct.unpack_from(">I", tfhd, at)[0])


def _run_length(trun: bytes, ticks: int) -> tuple[int, int]:
    flags, num_frames = struct.unpack_from(">II", trun)
    if not flags & _TRUN_DURATION:
        return num_frames, num_frames * ticks
    at = 8 + 4 * sum(bool(flags & flag) for flag in (_TRUN_OFFSET, _TRUN_FIRST_FLAGS))
    stride = 4 + 4 * sum(bool(flags & flag) for flag in _TRUN_OTHERS)
    total = sum(struct.unpack_from(">I", trun, at + stride * frame)[0] for frame in range(num_frames))
    return num_frames, total
