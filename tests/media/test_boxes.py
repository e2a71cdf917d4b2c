"""Box boundaries and the codecs string, on boxes made by hand."""

import pytest

from engine.media.boxes import codecs_string, split_boxes


def box(kind: str, payload: bytes = b"") -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + kind.encode() + payload


def long_box(kind: str, payload: bytes = b"") -> bytes:
    return (1).to_bytes(4, "big") + kind.encode() + (16 + len(payload)).to_bytes(8, "big") + payload


def init_segment(sample_entry: bytes) -> bytes:
    stsd = box("stsd", bytes(4) + (1).to_bytes(4, "big") + sample_entry)
    nested = box("stbl", stsd + box("stts"))
    for kind, sibling in (("minf", "vmhd"), ("mdia", "mdhd"), ("trak", "tkhd"), ("moov", "mvhd")):
        nested = box(kind, box(sibling, b"x" * 5) + nested)
    return box("ftyp", b"iso5") + nested


def avc1(configuration: bytes) -> bytes:
    return box("avc1", bytes(78) + box("pasp", bytes(8)) + box("avcC", configuration))


def test_splits_a_row_in_order() -> None:
    row = box("moof", b"abc") + box("mdat") + box("free", b"\0" * 9)
    boxes = list(split_boxes(row))
    assert [(b.kind, b.payload) for b in boxes] == [("moof", b"abc"), ("mdat", b""), ("free", b"\0" * 9)]
    assert b"".join(b.data for b in boxes) == row


def test_64_bit_size() -> None:
    row = long_box("mdat", b"12345") + box("moof", b"6")
    boxes = list(split_boxes(row))
    assert [(b.kind, b.payload) for b in boxes] == [("mdat", b"12345"), ("moof", b"6")]
    assert boxes[0].data == long_box("mdat", b"12345")


def test_no_bytes_no_boxes() -> None:
    assert list(split_boxes(b"")) == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(box("mdat", b"12345")[:-1], id="payload-cut"),
        pytest.param(box("mdat")[:6], id="header-cut"),
        pytest.param(long_box("mdat")[:12], id="long-header-cut"),
        pytest.param(long_box("mdat", b"12")[:-1], id="long-payload-cut"),
        pytest.param((7).to_bytes(4, "big") + b"mdat", id="smaller-than-its-header"),
        pytest.param((1).to_bytes(4, "big") + b"mdat" + (15).to_bytes(8, "big"), id="long-smaller-than-its-header"),
        pytest.param((0).to_bytes(4, "big") + b"mdat", id="size-zero"),
    ],
)
def test_a_box_that_does_not_fit_is_refused_with_its_place(broken: bytes) -> None:
    with pytest.raises(ValueError, match="box at byte 8 "):
        list(split_boxes(box("free") + broken))


def test_codecs_string_is_profile_constraints_level() -> None:
    assert codecs_string(init_segment(avc1(b"\x01\x64\x0a\x1e\xff"))) == "avc1.640a1e"


@pytest.mark.parametrize(
    ("segment", "missing"),
    [
        (box("ftyp"), "moov"),
        (init_segment(box("hvc1", bytes(78))), "avc1"),
        (init_segment(box("avc1", bytes(78) + box("pasp"))), "avcC"),
    ],
)
def test_codecs_string_names_what_is_missing(segment: bytes, missing: str) -> None:
    with pytest.raises(ValueError, match=f"no '{missing}' box"):
        codecs_string(segment)
