"""A finished video as one plain MP4 file (ISO/IEC 14496-12): its index first, then all pictures.

Any player knows its length and where each picture is, so it seeks, also over HTTP. Nothing is encoded or copied: the
file is a head that is written here, and the payloads of the fragments as they lie in the log. Knows no video and no
HTTP. The fragments are our own encoder's: one track, no picture out of order, each beginning with a picture that needs
no other.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

_FTYP = b"isom" + struct.pack(">I", 512) + b"isomiso2avc1mp41"
_CONTAINERS = frozenset({"moov", "trak", "mdia", "minf"})
_DURATION_HAS, _SIZE_HAS, _FLAGS_HAS = 0x8, 0x10, 0x20
"""Fields of a ``tfhd``."""
_OFFSET, _FIRST_FLAGS, _DURATION, _SIZE, _FLAGS, _SHIFT = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
"""Fields of a ``trun``."""


@dataclass
class Samples:
    """The pictures of a video, as its fragments tell of them."""

    sizes: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    """In units of the track's time scale."""
    counts: list[int] = field(default_factory=list)
    """Of each fragment."""
    payloads: list[int] = field(default_factory=list)
    """Where in each fragment its pictures begin."""
    lengths: list[int] = field(default_factory=list)
    """Of each fragment's pictures, in bytes."""

    def add(self, fragment: bytes) -> None:
        """The next fragment: a ``moof`` and its ``mdat``."""
        moof, mdat = _split(fragment)
        traf = _child(moof[1], "traf")
        sizes, durations = _run(_child(traf, "trun"), _child(traf, "tfhd"))
        assert sum(sizes) == len(mdat[1]), f"a fragment's pictures have {sum(sizes)} bytes; {len(mdat[1])} are there"
        self.sizes += sizes
        self.durations += durations
        self.counts.append(len(sizes))
        self.lengths.append(len(mdat[1]))
        self.payloads.append(len(fragment) - len(mdat[1]))


@dataclass(frozen=True)
class FlatFile:
    """A file whose bytes lie elsewhere, but for its head."""

    head: bytes
    """``ftyp``, ``moov`` and the header of the ``mdat``."""
    starts: list[int]
    """Where in the file each fragment's pictures begin."""
    payloads: list[int]
    """Where in the fragment."""
    length: int

    def spans(self, wanted: range) -> Iterator[tuple[int, slice]]:
        """Where the bytes of a range of the file lie, in order: a fragment, or -1 for the head, and what of it."""
        if wanted.start < len(self.head):
            yield -1, slice(wanted.start, min(wanted.stop, len(self.head)))
        first = max(0, bisect_right(self.starts, wanted.start) - 1)
        for fragment in range(first, len(self.starts)):
            start = self.starts[fragment]
            if start >= wanted.stop:
                break
            end = self.starts[fragment + 1] if fragment + 1 < len(self.starts) else self.length
            offset = self.payloads[fragment] - start
            yield fragment, slice(max(start, wanted.start) + offset, min(end, wanted.stop) + offset)


def flat_file(init_segment: bytes, fragments: Iterable[bytes]) -> FlatFile:
    """The file of a video that has these fragments."""
    samples = Samples()
    for fragment in fragments:
        samples.add(fragment)
    size = sum(samples.lengths)
    mdat = struct.pack(">I4sQ", 1, b"mdat", size + 16)
    ftyp, moov = _box("ftyp", _FTYP), _child(init_segment, "moov")
    head_bytes = len(ftyp) + len(_moov(moov, samples, [0] * len(samples.counts))) + len(mdat)
    starts, at = [], head_bytes
    for length in samples.lengths:
        starts.append(at)
        at += length
    head = ftyp + _moov(moov, samples, starts) + mdat
    return FlatFile(head, starts, samples.payloads, head_bytes + size)


def _moov(moov: bytes, samples: Samples, starts: list[int]) -> bytes:
    """The index: what the init segment says, and where every picture is."""
    mdhd = _child(_child(_child(moov, "trak"), "mdia"), "mdhd")
    timescale, length = mdhd[12:16], struct.pack(">I", sum(samples.durations))
    tables = _tables(
        _child(_child(_child(_child(_child(moov, "trak"), "mdia"), "minf"), "stbl"), "stsd"), samples, starts
    )
    edits: dict[str, Callable[[bytes], bytes]] = {
        "mvhd": lambda payload: _patched(payload, 12, timescale + length),  # the track's: lengths are exact then
        "tkhd": lambda payload: _patched(payload, 20, length),
        "mdhd": lambda payload: _patched(payload, 16, length),
        "stbl": lambda payload: tables,
    }

    def rebuilt(payload: bytes) -> bytes:
        parts = []
        for kind, inner in _split(payload):
            if kind == "mvex":
                continue  # it says that fragments come
            edit = edits.get(kind, rebuilt if kind in _CONTAINERS else bytes)
            parts.append(_box(kind, edit(inner)))
        return b"".join(parts)

    return _box("moov", rebuilt(moov))


def _tables(stsd: bytes, samples: Samples, starts: list[int]) -> bytes:
    """What a ``stbl`` holds. A chunk is a fragment; its first picture is where playback can begin."""
    durations = [(len(list(same)), duration) for duration, same in groupby(samples.durations)]
    firsts, first = [], 1
    for count in samples.counts:
        firsts.append(first)
        first += count
    chunks = [(at, count) for at, count in enumerate(samples.counts, 1)]
    chunks = [one for at, one in enumerate(chunks) if at == 0 or chunks[at - 1][1] != one[1]]
    return b"".join(
        [
            _box("stsd", stsd),
            _table("stts", [word for pair in durations for word in pair], len(durations)),
            _table("stss", firsts, len(firsts)),
            _table("stsc", [word for at, count in chunks for word in (at, count, 1)], len(chunks)),
            _table("stsz", [len(samples.sizes), *samples.sizes], 0),  # 0: they differ
            _box("co64", struct.pack(f">II{len(starts)}Q", 0, len(starts), *starts)),
        ]
    )


def _run(trun: bytes, tfhd: bytes) -> tuple[list[int], list[int]]:
    """Sizes and durations of a fragment's pictures."""
    defaults, has = _words(tfhd)[2:], _words(tfhd)[0]
    assert not has & 0x3, "a tfhd with an offset or another description"
    duration = defaults.pop(0) if has & _DURATION_HAS else None
    size = defaults.pop(0) if has & _SIZE_HAS else None
    flags, count, *rest = _words(trun)
    assert not flags & _SHIFT, "pictures out of order"
    del rest[: bool(flags & _OFFSET) + bool(flags & _FIRST_FLAGS)]
    fields = [bit for bit in (_DURATION, _SIZE, _FLAGS) if flags & bit]
    columns = {bit: rest[at :: len(fields)] for at, bit in enumerate(fields)}
    sizes, durations = columns.get(_SIZE, [size] * count), columns.get(_DURATION, [duration] * count)
    assert None not in sizes and None not in durations, "a fragment does not tell of its pictures"
    return [int(one or 0) for one in sizes], [int(one or 0) for one in durations]


def _patched(payload: bytes, at: int, data: bytes) -> bytes:
    assert payload[0] == 0, "a header of another version"
    return payload[:at] + data + payload[at + len(data) :]


def _table(kind: str, words: list[int], count: int) -> bytes:
    return _box(kind, struct.pack(f">II{len(words)}I", 0, count, *words))


def _box(kind: str, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind.encode("ascii")) + payload


def _split(data: bytes) -> list[tuple[str, bytes]]:
    """Kinds and payloads of boxes whose sizes have 32 bits."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert 8 <= size <= len(data) - at, f"a box of {size} bytes, where {len(data) - at} are left"
        found.append((data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + size]))
        at += size
    return found


def _child(data: bytes, kind: str) -> bytes:
    return next(payload for found, payload in _split(data) if found == kind)


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 4}I", data[: len(data) // 4 * 4]))
