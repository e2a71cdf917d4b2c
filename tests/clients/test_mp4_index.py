"""The index that ``hiar`` writes into a file: what it says is where the fragments are, and FFmpeg goes by it."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from hiar_client.boxes import Box, split
from hiar_client.cli.output import FileOutput
from hiar_client.client import Client
from hiar_client.fragments import Fragment
from hiar_client.mp4_index import Place, random_access, room_for, seek_index
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer, serving


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia)) as server:
        yield server


@pytest.fixture(scope="module")
def made(live: LiveServer) -> tuple[bytes, list[Fragment]]:
    """Init segment and fragments of six seconds."""
    with Client(live.url) as client, client.generate("a fox", seconds=6, pace="fast") as video:
        return video.init_segment, list(video)


def written(made: tuple[bytes, list[Fragment]], path: Path, seconds: float | None, first: int = 0) -> bytes:
    output = FileOutput(path, seconds, may_replace=True)
    output.begin(made[0])
    for fragment in made[1][first:]:
        output.add(fragment)
    output.finish()
    return path.read_bytes()


def references(data: bytes) -> list[tuple[int, int]]:
    """(offset of its moof in the file, ticks) of each entry of the ``sidx``."""
    at = 0
    for box in split(data):
        at += len(box.data)
        if box.kind == "sidx":
            return list(_references(box, at))
    raise AssertionError("there is no sidx")


def _references(sidx: Box, at: int) -> Iterator[tuple[int, int]]:
    first_offset, count = struct.unpack_from(">Q2xH", sidx.body, 20)
    at += first_offset
    for number in range(count):
        num_bytes, ticks, sap = struct.unpack_from(">III", sidx.body, 32 + 12 * number)
        assert sap >> 28 == 9
        yield at, ticks
        at += num_bytes


@pytest.mark.parametrize(("seconds", "first"), [(6.0, 0), (None, 0), (6.0, 2)])
def test_the_index_points_at_every_fragment(
    made: tuple[bytes, list[Fragment]], tmp_path: Path, seconds: float | None, first: int
) -> None:
    data = written(made, tmp_path / "fox.mp4", seconds, first)
    found = references(data)
    assert [data[at + 4 : at + 8] for at, _ in found] == [b"moof"] * (len(made[1]) - first)
    boxes = list(split(data))
    assert [box.kind for box in boxes][:4] == ["ftyp", "moov", "sidx", "free"]
    assert boxes[-1].kind == "mfra" and struct.unpack(">I", data[-4:])[0] == len(boxes[-1].data)


def test_ffmpeg_knows_length_and_seeks_by_it(made: tuple[bytes, list[Fragment]], tmp_path: Path) -> None:
    data = written(made, tmp_path / "fox.mp4", 6.0)
    with av.open(io.BytesIO(data)) as container:
        assert container.duration == 6_000_000
        stream = container.streams.video[0]
        container.seek(4_000_000)
        assert 3.2 < float(next(container.decode(stream)).time or 0) <= 4.0
    with av.open(io.BytesIO(data)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 96


def test_a_file_whose_writer_died_plays(made: tuple[bytes, list[Fragment]], tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "fox.mp4", 6.0, may_replace=True)
    output.begin(made[0])
    for fragment in made[1][:4]:
        output.add(fragment)
    data = (tmp_path / "fox.mp4").read_bytes()
    output.finish()
    with av.open(io.BytesIO(data)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 45


def test_half_a_fragment_is_dropped(made: tuple[bytes, list[Fragment]], tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "fox.mp4", 6.0, may_replace=True)
    output.begin(made[0])
    output.add(made[1][0])
    with (tmp_path / "fox.mp4").open("ab") as file:
        file.write(made[1][1].data[:70])  # a signal came in the middle of it
    output.finish()
    assert [box.kind for box in split((tmp_path / "fox.mp4").read_bytes())][3:] == ["free", "moof", "mdat", "mfra"]


def test_neighbours_share_an_entry_where_there_is_little_room() -> None:
    places = [Place(offset=1000 + 10 * at, num_bytes=10, start_ticks=at * 5, num_ticks=5) for at in range(7)]
    room = room_for(3)
    boxes = list(split(seek_index(places, 1, 16, len(room))))
    assert [box.kind for box in boxes] == ["sidx", "free"]
    assert sum(len(box.data) for box in boxes) == len(room)
    assert [(at, ticks) for at, ticks in _references(boxes[0], 0)] == [(8, 15), (38, 15), (68, 5)]
    assert random_access(places, 1)[-4:] == struct.pack(">I", len(random_access(places, 1)))
