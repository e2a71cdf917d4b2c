"""What a video's files hold: records one behind the other, each with its length and a checksum. Bytes alone.

A file is only ever appended to. What was cut off in the middle of a record, by a crash or a full disk, is no record: it
is not read, and nothing behind it. A video has several files where it was taken up again: each life writes its own, and
what a later one says of a block, and of all behind it, holds. So a life that ended without knowing it spoils nothing.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from engine import Fragment, InitSegment, Recovery

_HEADER = struct.Struct(">4sBII")
"""Magic, kind, and the lengths of the record's words and data."""
_MAGIC = b"HiV1"
_CHECK = struct.Struct(">I")
WORDS_MAX = 1 << 20


class Kind(IntEnum):
    """What a record tells of a video."""

    INIT = 0
    BLOCK = 1
    PROMPT = 2
    RECOVERY = 3
    GIVEN = 4
    """Bytes of the request."""
    PAUSE = 5
    """It was paused, or is to go on."""


def record(kind: Kind, words: dict[str, Any], data: bytes = b"") -> bytes:
    """A record: a few words as JSON, and bytes."""
    text = json.dumps(words).encode("ascii")
    assert len(text) <= WORDS_MAX, f"{len(text)} bytes of words"
    head = _HEADER.pack(_MAGIC, kind, len(text), len(data)) + text
    return b"".join([head, data, _CHECK.pack(zlib.crc32(data, zlib.crc32(head)))])


def init_record(init: InitSegment) -> bytes:
    """What a player needs before the first block."""
    return record(Kind.INIT, {"codecs": init.codecs}, init.data)


def block_record(fragment: Fragment) -> bytes:
    """One block."""
    words = {
        "block": fragment.block,
        "num_frames": fragment.num_frames,
        "start_s": fragment.start_s,
        "duration_s": fragment.duration_s,
    }
    return record(Kind.BLOCK, words, fragment.data)


@dataclass(frozen=True)
class Source:
    """A file of records."""

    name: str
    length: int
    read: Callable[[int, int], bytes]
    """Bytes from an offset on, so many, or fewer at the file's end."""


@dataclass(frozen=True)
class Place:
    """Where a block lies, and what is known of it without reading it."""

    source: Source
    offset: int
    """Of its data."""
    length: int
    num_frames: int
    start_s: float
    duration_s: float


@dataclass
class Contents:
    """All that a video's files tell."""

    init: InitSegment | None = None
    blocks: list[Place] = field(default_factory=list)
    """From block 0 on."""
    prompts: list[tuple[int, str]] = field(default_factory=list)
    """Texts by the block from which they hold; of one block the last counts."""
    recoveries: list[Recovery] = field(default_factory=list)
    given: list[tuple[Source, int, int]] = field(default_factory=list)
    """Where bytes of the request lie: file, offset, length."""
    is_paused: bool = False

    @property
    def num_bytes(self) -> int:
        """Of all blocks."""
        return sum(place.length for place in self.blocks)

    def given_bytes(self) -> list[bytes]:
        """Read the bytes of the request. Raises ``OSError``."""
        return [source.read(offset, length) for source, offset, length in self.given]

    def fragment(self, block: int) -> Fragment:
        """Read one block. Raises ``OSError``."""
        place = self.blocks[block]
        data = place.source.read(place.offset, place.length)
        if len(data) != place.length:
            raise OSError(f"{place.source.name}: block {block} is not there any more")
        return Fragment(
            block=block,
            data=data,
            num_frames=place.num_frames,
            start_s=place.start_s,
            duration_s=place.duration_s,
        )


def contents_of(sources: Sequence[Source], *, checks_all: bool = False) -> Contents:
    """Read what a video's files tell, in the order in which they were begun. Raises ``OSError``.

    Args:
        sources: the files.
        checks_all: verify the checksums of blocks too, as a life must that goes on behind them; else of the last alone.
    """
    found = Contents()
    for source in sources:
        for kind, words, offset, length in _records(source, checks_all=checks_all):
            _take(found, source, kind, words, offset, length)
    return found


def _take(found: Contents, source: Source, kind: Kind, words: dict[str, Any], offset: int, length: int) -> None:
    match kind:
        case Kind.INIT:
            found.init = InitSegment(source.read(offset, length), words["codecs"])
        case Kind.GIVEN:
            found.given.append((source, offset, length))
        case Kind.PROMPT:
            found.prompts.append((words["block"], words["text"]))
        case Kind.PAUSE:
            found.is_paused = words["is_paused"]
        case Kind.RECOVERY:
            found.recoveries.append(Recovery(block=words["block"], exact=words["exact"]))
        case Kind.BLOCK:
            _take_block(found, source, words, offset, length)


def _take_block(found: Contents, source: Source, words: dict[str, Any], offset: int, length: int) -> None:
    block = words["block"]
    if block > len(found.blocks):
        return  # what is between was lost; those behind are of no use
    del found.blocks[block:]
    place = Place(source, offset, length, words["num_frames"], words["start_s"], words["duration_s"])
    found.blocks.append(place)


def _records(source: Source, *, checks_all: bool) -> Iterator[tuple[Kind, dict[str, Any], int, int]]:
    """Kinds, words, and where the data lies, up to the first that is not whole."""
    at = 0
    while at + _HEADER.size <= source.length:
        head = source.read(at, _HEADER.size)
        if len(head) < _HEADER.size:
            return
        magic, kind, words_length, length = _HEADER.unpack(head)
        end = at + _HEADER.size + words_length + length + _CHECK.size
        if magic != _MAGIC or words_length > WORDS_MAX or end > source.length:
            return
        text = source.read(at + _HEADER.size, words_length)
        offset = at + _HEADER.size + words_length
        is_last = end == source.length
        if (checks_all or is_last or kind != Kind.BLOCK) and not _is_whole(source, head + text, offset, length):
            return
        yield Kind(kind), json.loads(text), offset, length
        at = end


def _is_whole(source: Source, head: bytes, offset: int, length: int) -> bool:
    tail = source.read(offset, length + _CHECK.size)
    if len(tail) < length + _CHECK.size:
        return False
    (wanted,) = _CHECK.unpack(tail[length:])
    return bool(zlib.crc32(tail[:length], zlib.crc32(head)) == wanted)
