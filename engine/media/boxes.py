"""Boxes of the ISO base media file format (ISO/IEC 14496-12): where one ends, and what the codecs string in one says.

Knows nothing of codecs, pictures or sockets: bytes in, bytes out. Source: ``operations`` spec sections 2.1 and 2.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

SHORT_HEADER_BYTES = 8
LONG_HEADER_BYTES = 16
SIZE_IS_64_BIT = 1
"""Value of the 32-bit size field that says: the size is in the 8 bytes after the type."""
SAMPLE_DESCRIPTION_HEADER_BYTES = 8
"""Version, flags and entry count that come before the entries of ``stsd``."""
VISUAL_SAMPLE_ENTRY_BYTES = 78
"""Fixed fields of a video sample entry (``avc1``) that come before its boxes."""


@dataclass(frozen=True)
class Box:
    """One box."""

    kind: str
    """Four characters, for instance ``moof``."""
    data: bytes
    """The whole box, its header included."""
    header_bytes: int

    @property
    def payload(self) -> bytes:
        """The box without its header."""
        return self.data[self.header_bytes :]


def split_boxes(data: bytes) -> Iterator[Box]:
    """Yield the boxes of ``data`` in order. Raises ``ValueError`` at a box that does not end within ``data``."""
    start = 0
    while start < len(data):
        size_bytes, header_bytes = _box_size(data, start)
        end = start + size_bytes
        if size_bytes < header_bytes or end > len(data):
            raise ValueError(f"box at byte {start} says {size_bytes} bytes; {len(data) - start} are there")
        kind = data[start + 4 : start + 8].decode("latin-1")
        yield Box(kind, data[start:end], header_bytes)
        start = end


def codecs_string(init_segment: bytes) -> str:
    """Return the RFC 6381 string of an init segment: ``avc1.`` and profile, constraints and level out of its ``avcC``.

    Raises ``ValueError`` if the segment holds no H.264 track.
    """
    stsd = init_segment
    for kind in ("moov", "trak", "mdia", "minf", "stbl", "stsd"):
        stsd = _child(stsd, kind)
    avc1 = _child(stsd[SAMPLE_DESCRIPTION_HEADER_BYTES:], "avc1")
    avcc = _child(avc1[VISUAL_SAMPLE_ENTRY_BYTES:], "avcC")
    return f"avc1.{avcc[1:4].hex()}"


def _box_size(data: bytes, start: int) -> tuple[int, int]:
    """Return the size of the box at ``start`` and of its header, in bytes."""
    size_bytes = int.from_bytes(data[start : start + 4], "big")
    if size_bytes == SIZE_IS_64_BIT:
        size_field = data[start + SHORT_HEADER_BYTES : start + LONG_HEADER_BYTES]
        return int.from_bytes(size_field, "big"), LONG_HEADER_BYTES
    return size_bytes, SHORT_HEADER_BYTES


def _child(data: bytes, kind: str) -> bytes:
    """Return the payload of the first box of ``kind`` in ``data``."""
    kinds = []
    for box in split_boxes(data):
        if box.kind == kind:
            return box.payload
        kinds.append(box.kind)
    raise ValueError(f"no {kind!r} box among {kinds}")
