"""A flat file has the same pictures at the same times as the fragments it is made of, and says where each is."""

import io
import struct
from fractions import Fraction
from itertools import pairwise

import av
import pytest

from engine.messages import OpenTicket
from engine.request import Output, Quality, TensorBytes
from server.videos.flat import FlatFile, flat_file
from tests.media.mp4_reading import children, decode
from tests.media.painted import number_in
from tests.painted_mp4 import PaintedMedia

BLOCK_LENGTHS = [9, 12, 12, 12, 5, 1]
"""The first block of a causal VAE is short, and the last one is cut."""
FPS = 30
"""Does not divide a second into whole units of a thousandth, which is what a container counts in by itself."""


@pytest.fixture(scope="module")
def fragments() -> tuple[bytes, list[bytes]]:
    opened = OpenTicket(
        video="a",
        seed=0,
        latent_height=12,
        latent_width=12,
        fps=FPS,
        quality=Quality.DRAFT,
        output=Output.FRAGMENTS,
        embedding=TensorBytes(dtype="uint8", shape=(0,), data=b""),
    )
    media, first, made = PaintedMedia(opened), 0, []
    for block, length in enumerate(BLOCK_LENGTHS):
        made.append(media.fragment(block, length, first, b""))
        first += length
    return media.init_segment, made


def bytes_of(file: FlatFile, fragments: list[bytes], wanted: range) -> bytes:
    return b"".join((file.head if at < 0 else fragments[at])[where] for at, where in file.spans(wanted))


def whole(init: bytes, fragments: list[bytes]) -> bytes:
    file = flat_file(init, fragments)
    return bytes_of(file, fragments, range(file.length))


def test_pictures_times_and_length_are_the_same(fragments: tuple[bytes, list[bytes]]) -> None:
    init, made = fragments
    data, live = whole(init, made), decode(init + b"".join(made))
    flat = decode(data)
    assert [number_in(picture.planes) for picture in flat] == list(range(51))
    assert [(one.time_s, one.is_key, one.planes.tobytes()) for one in flat] == [
        (one.time_s, one.is_key, one.planes.tobytes()) for one in live
    ]
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 51 and stream.duration is not None and stream.time_base is not None
        assert stream.duration * stream.time_base == Fraction(51, FPS)
        assert container.duration == pytest.approx(51 / FPS * 1e6, abs=1)


def test_its_index_comes_first_and_no_fragment_is_announced(fragments: tuple[bytes, list[bytes]]) -> None:
    boxes = children(whole(*fragments))
    assert list(boxes) == ["ftyp", "moov", "mdat"]
    assert set(children(boxes["moov"])) == {"mvhd", "trak", "udta"}
    track = children(children(boxes["moov"])["trak"])
    media, movie = children(track["mdia"])["mdhd"], children(boxes["moov"])["mvhd"]
    assert struct.unpack(">II", movie[12:20]) == struct.unpack(">II", media[12:20]) == (15360, 51 * 512)
    assert struct.unpack(">I", track["tkhd"][20:24]) == (51 * 512,)
    stbl = children(children(children(children(boxes["moov"])["trak"])["mdia"])["minf"])["stbl"]
    tables = children(stbl)
    firsts = struct.unpack(">6I", tables["stss"][8:])
    assert firsts == (1, 10, 22, 34, 46, 51), "every block is a place to seek to"
    assert struct.unpack(">12I", tables["stsc"][8:]) == (1, 9, 1, 2, 12, 1, 5, 5, 1, 6, 1, 1)


def test_a_player_seeks_to_the_block_of_a_moment(fragments: tuple[bytes, list[bytes]]) -> None:
    data = whole(*fragments)
    starts = [0, 9, 21, 33, 45, 50]
    with av.open(io.BytesIO(data)) as container:
        for (start, end), into in [(pair, part) for pair in pairwise(starts) for part in (0, 0.99)]:
            at_s = (start + (end - start - 1) * into) / FPS
            container.seek(round(at_s * 1e6) + 1)
            picture = next(container.decode(video=0))
            assert number_in(picture.to_ndarray(format="yuv420p")) == start


@pytest.mark.parametrize("step", [1, 7, 100, 999])
def test_any_part_is_a_part_of_the_whole(fragments: tuple[bytes, list[bytes]], step: int) -> None:
    init, made = fragments
    file, data = flat_file(init, made), whole(init, made)
    assert len(data) == file.length
    for begin in [*range(0, len(data), 211), *file.starts]:
        assert bytes_of(file, made, range(begin, min(begin + step, len(data)))) == data[begin : begin + step]
    assert (
        b"".join(bytes_of(file, made, range(at, min(at + 5000, len(data)))) for at in range(0, len(data), 5000)) == data
    )
