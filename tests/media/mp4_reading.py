"""Reading fragments back for the tests: box fields by ISO/IEC 14496-12, pictures by PyAV's decoder."""

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType

from engine.media.boxes import split_boxes

NON_SYNC_SAMPLE = 0x10000
DEFAULT_BASE_IS_MOOF = 0x20000


@dataclass(frozen=True)
class FragmentFields:
    kinds: list[str]
    sequence: int
    decode_time_bytes: int
    decode_time: int
    base_is_moof: bool
    durations: list[int]
    sizes: list[int]
    sync: list[bool]
    has_composition_offsets: bool
    data_offset: int
    moof_bytes: int
    mdat_payload_bytes: int


@dataclass(frozen=True)
class Picture:
    time_s: Fraction
    planes: np.ndarray
    is_key: bool
    is_intra: bool


def children(data: bytes) -> dict[str, bytes]:
    boxes = list(split_boxes(data))
    assert len({box.kind for box in boxes}) == len(boxes), [box.kind for box in boxes]
    return {box.kind: box.payload for box in boxes}


def read_fragment(data: bytes) -> FragmentFields:
    top = list(split_boxes(data))
    moof = children(top[0].payload)
    traf = children(moof["traf"])
    tfhd, defaults = _read_tfhd(traf["tfhd"])
    trun_flags, data_offset, samples = _read_trun(traf["trun"], defaults)
    decode_time_bytes = {0: 4, 1: 8}[traf["tfdt"][0]]
    return FragmentFields(
        kinds=[box.kind for box in top],
        sequence=int.from_bytes(moof["mfhd"][4:8], "big"),
        decode_time_bytes=decode_time_bytes,
        decode_time=int.from_bytes(traf["tfdt"][4 : 4 + decode_time_bytes], "big"),
        base_is_moof=bool(tfhd & DEFAULT_BASE_IS_MOOF),
        durations=[sample["duration"] for sample in samples],
        sizes=[sample["size"] for sample in samples],
        sync=[not sample["flags"] & NON_SYNC_SAMPLE for sample in samples],
        has_composition_offsets=bool(trun_flags & 0x800),
        data_offset=data_offset,
        moof_bytes=len(top[0].data),
        mdat_payload_bytes=len(top[1].payload),
    )


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4)]


def _read_tfhd(payload: bytes) -> tuple[int, dict[str, int]]:
    flags, _track, *rest = _words(payload)
    assert not flags & 0x3, "base data offset or description index: not expected"
    present = {"duration": 0x8, "size": 0x10, "flags": 0x20}
    return flags, {name: rest.pop(0) for name, bit in present.items() if flags & bit}


def _read_trun(payload: bytes, defaults: dict[str, int]) -> tuple[int, int, list[dict[str, int]]]:
    flags, count, *rest = _words(payload)
    assert flags & 0x1, "a data offset is needed"
    data_offset = rest.pop(0)
    first = {"flags": rest.pop(0)} if flags & 0x4 else {}
    present = [name for name, bit in {"duration": 0x100, "size": 0x200, "flags": 0x400}.items() if flags & bit]
    samples = [defaults | {name: rest.pop(0) for name in present} for _ in range(count)]
    samples[0] |= first
    assert not rest or flags & 0x800, "bytes left over"
    return flags, data_offset, samples


def media_timescale(init_segment: bytes) -> int:
    mdhd = children(children(children(children(init_segment)["moov"])["trak"])["mdia"])["mdhd"]
    return int.from_bytes(mdhd[12:16] if mdhd[0] == 0 else mdhd[20:24], "big")


def decode(data: bytes) -> list[Picture]:
    """Decode a whole stream; anything FFmpeg has to say about it is a failure."""
    pictures = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as complaints, av.open(io.BytesIO(data)) as container:
            for frame in container.decode(video=0):
                planes = frame.to_ndarray(format="yuv420p")
                is_intra = frame.pict_type == PictureType.I
                pictures.append(Picture(frame.pts * frame.time_base, planes, frame.key_frame, is_intra))
    finally:
        av.logging.set_level(level)
    assert complaints == []
    return pictures
