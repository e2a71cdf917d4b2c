"""Fragmented MP4 of a few bytes: well-formed boxes around made-up pictures."""

import struct

from engine.messages import OpenTicket

CODECS = "avc1.64000d"
TIMESCALE = 16384


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def init_segment() -> bytes:
    media_header = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, TIMESCALE, 0, 0))
    tables = box(b"minf", box(b"stbl", box(b"stsd", bytes(8))))
    track = box(b"trak", box(b"tkhd", bytes(84)), box(b"mdia", media_header, tables))
    defaults = box(b"mvex", box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 0, 0, 0)))
    return box(b"ftyp", b"iso5", bytes(4)) + box(b"moov", box(b"mvhd", bytes(100)), track, defaults)


def fragment_bytes(block: int, num_frames: int, start_frame: int, fps: int, payload: bytes) -> bytes:
    ticks = TIMESCALE // fps
    header = box(b"tfhd", struct.pack(">III", 0x020008, 1, ticks))
    decode_time = box(b"tfdt", struct.pack(">IQ", 1 << 24, start_frame * ticks))
    sizes = [len(payload), *[0] * (num_frames - 1)]
    run = box(b"trun", struct.pack(f">II{num_frames}I", 0x200, num_frames, *sizes))
    sequence = box(b"mfhd", struct.pack(">II", 0, block + 1))
    return box(b"moof", sequence, box(b"traf", header, decode_time, run)) + box(b"mdat", payload)


class SmallMedia:
    """The bytes of one video; ``tests.painted_mp4`` has one with pictures."""

    init_segment = init_segment()
    codecs = CODECS

    def __init__(self, opened: OpenTicket) -> None:
        self.opened = opened

    def fragment(self, block: int, num_frames: int, start_frame: int, payload: bytes) -> bytes:
        """A block; ``payload`` stands for its pictures."""
        return fragment_bytes(block, num_frames, start_frame, self.opened.fps, payload)
