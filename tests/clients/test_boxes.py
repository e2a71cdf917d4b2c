"""Boxes come out whole however the bytes are cut."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiar_client import boxes as client_boxes
from hiar_client.boxes import Box, BoxSplitter, NotMp4, default_ticks, fragment_length, signal, split, timescale
from server.videos import boxes as server_boxes
from tests.small_mp4 import TIMESCALE, box, fragment_bytes, init_segment

STREAM = (
    init_segment() + fragment_bytes(0, 9, 0, 16, b"abc") + server_boxes.KEEP_ALIVE + server_boxes.end_box("drain", 0)
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_chunk_edges_mean_nothing(cuts: list[int]) -> None:
    splitter = BoxSplitter()
    edges = [0, *cuts, len(STREAM)]
    found = [one for start, end in itertools.pairwise(edges) for one in splitter.feed(STREAM[start:end])]
    assert [one.kind for one in found] == ["ftyp", "moov", "moof", "mdat", "free", "uuid"]
    assert b"".join(one.data for one in found) == STREAM
    assert splitter.held_bytes == 0


def test_both_sides_agree_on_the_signal() -> None:
    assert client_boxes.SIGNAL_UUID == server_boxes.SIGNAL_UUID
    sent = server_boxes.error_box("worker_lost", "gone", retryable=True, last_block=4)
    assert signal(next(split(sent))) == {
        "type": "error",
        "code": "worker_lost",
        "message": "gone",
        "retryable": True,
        "last_block": 4,
    }
    assert signal(next(split(box(b"uuid", bytes(16), b"{}")))) is None


def test_a_64_bit_size() -> None:
    data = struct.pack(">I4sQ", 1, b"mdat", 20) + b"abcd"
    (found,) = split(data)
    assert (found.kind, found.body) == ("mdat", b"abcd")


@pytest.mark.parametrize("data", [b"\0\0\0\x07free", b"<!doctype html>", b"\0\0\0\x10\xff\xff\xff\xff"])
def test_what_is_no_box_is_refused(data: bytes) -> None:
    with pytest.raises(NotMp4):
        list(split(data))


def test_times_come_from_the_boxes() -> None:
    _, moov, moof, _ = split(init_segment() + fragment_bytes(0, 9, 0, 16, b""))
    assert timescale(moov) == TIMESCALE
    assert fragment_length(moof, default_ticks(moov)) == (9, 9 * TIMESCALE // 16)


def moof_of(tfhd: bytes, trun: bytes) -> Box:
    return next(split(box(b"moof", box(b"traf", box(b"tfhd", tfhd), box(b"trun", trun)))))


def test_durations_may_stand_in_any_of_three_places() -> None:
    plain_header = struct.pack(">II", 0x020000, 1)
    full_header = struct.pack(">IIQII", 0x02000B, 1, 0, 1, 7)
    plain_run = struct.pack(">III", 0x000001, 3, 0)
    full_run = struct.pack(">III6I", 0x000301, 3, 0, 5, 99, 6, 99, 7, 99)
    assert fragment_length(moof_of(plain_header, plain_run), 10) == (3, 30)
    assert fragment_length(moof_of(full_header, plain_run), 10) == (3, 21)
    assert fragment_length(moof_of(plain_header, full_run), 10) == (3, 18)
