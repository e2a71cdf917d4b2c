"""The index of a file of fragments, by which a player knows its length and can seek at once.

Room for a ``sidx`` is left between the init segment and the first fragment, and filled in the end; an ``mfra`` follows
the last fragment. Until then, and if neither is ever written, the file plays as it is. Knows no HTTP, opens no file.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hiar_client.boxes import Box, NotMp4, split

_SIDX_FIXED_BYTES = 12 + 28
_REFERENCE_BYTES = 12
_FREE_BYTES = 8
_STARTS_WITH_KEY_FRAME = 0x90000000
"""SAP type 1: every fragment begins with a picture that needs no other."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a fragment lies in the file and in time."""

    offset: int
    num_bytes: int
    start_ticks: int
    num_ticks: int


def room_for(num_references: int) -> bytes:
    """An empty box in whose place ``seek_index`` fits with so many references."""
    size = _SIDX_FIXED_BYTES + num_references * _REFERENCE_BYTES + _FREE_BYTES
    return struct.pack(">I4s", size, b"free") + bytes(size - 8)


def seek_index(places: Sequence[Place], track: int, timescale: int, room_bytes: int) -> bytes:
    """A ``sidx`` and what is left of the room, ``room_bytes`` together; neighbours share entries where it is short."""
    fit = (room_bytes - _SIDX_FIXED_BYTES - _FREE_BYTES) // _REFERENCE_BYTES
    each = -(-len(places) // fit)
    groups = [places[at : at + each] for at in range(0, len(places), each)]
    left = room_bytes - _SIDX_FIXED_BYTES - len(groups) * _REFERENCE_BYTES
    body = struct.pack(">IIIQQHH", 1 << 24, track, timescale, places[0].start_ticks, left, 0, len(groups))
    for group in groups:
        num_bytes, num_ticks = sum(place.num_bytes for place in group), sum(place.num_ticks for place in group)
        body += struct.pack(">III", num_bytes, num_ticks, _STARTS_WITH_KEY_FRAME)
    return _box(b"sidx", body) + _box(b"free", bytes(left - 8))


def random_access(places: Sequence[Place], track: int) -> bytes:
    """An ``mfra``: the last box of a file, which is found from its end."""
    entries = b"".join(struct.pack(">QQBBB", place.start_ticks, place.offset, 1, 1, 1) for place in places)
    tfra = _box(b"tfra", struct.pack(">IIII", 1 << 24, track, 0, len(places)) + entries)
    size = 8 + len(tfra) + 16
    return _box(b"mfra", tfra + _box(b"mfro", struct.pack(">II", 0, size)))


def start_of(moof: bytes) -> tuple[int, int]:
    """(track, first tick) of a fragment that begins with these bytes. Raises ``NotMp4``."""
    track = _inside(_inside(next(split(moof)), "traf"), "tfhd").body
    time = _inside(_inside(next(split(moof)), "traf"), "tfdt").body
    return struct.unpack_from(">I", track, 4)[0], struct.unpack_from(">Q" if time[0] == 1 else ">I", time, 4)[0]


def _inside(box: Box, kind: str) -> Box:
    for inner in split(box.body):
        if inner.kind == kind:
            return inner
    raise NotMp4(f"there is no {kind!r} in {box.kind!r}")


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body
