"""Videos in files, pictures out of videos, and pictures that videos begin with."""

import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from hiar_client import BadMedia, Client, ExtraMissing, Fragment, WorkerLost, requests
from hiar_client.boxes import split
from tests.clients.both import MakeClient
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.media.painted import number_in
from tests.server.live_server import LiveServer
from tests.server.media import clip, gradient, greys, still

NUM_FRAMES = 21
VIDEO = {"prompt": "a fox", "seconds": NUM_FRAMES / 16}


@pytest.fixture
def breaking() -> Iterator[LiveServer]:
    with serving(Behaviour(fail_at=2, failure=engine.WorkerLost("a worker died"))) as server:
        yield server


def kinds(data: bytes) -> list[str]:
    return [box.kind for box in split(data)]


def test_a_file_is_there_when_it_is_whole(shared: LiveServer, make_client: MakeClient, tmp_path: Path) -> None:
    target, seen = tmp_path / "fox.mp4", list[tuple[int, list[str]]]()

    def look(fragment: Fragment) -> None:
        seen.append((fragment.block, sorted(path.name for path in tmp_path.iterdir())))

    with make_client(shared.url) as client, client.generate(**VIDEO) as video:
        saved = video.save(target, on_fragment=look)
    assert seen == [(0, ["fox.mp4.part"]), (1, ["fox.mp4.part"])]
    assert list(tmp_path.iterdir()) == [target]
    assert kinds(target.read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 2]
    assert (saved.num_blocks, saved.num_frames, saved.duration_s) == (2, NUM_FRAMES, NUM_FRAMES / 16)
    assert saved.num_bytes == target.stat().st_size and saved.end == video.end


def test_an_open_file_is_written_as_it_comes(shared: LiveServer, make_client: MakeClient) -> None:
    file = io.BytesIO()
    with make_client(shared.url) as client, client.generate(**VIDEO) as video:
        first = next(iter(video))
        saved = video.save(file)
    assert saved.num_blocks == 1 and file.getvalue().startswith(video.init_segment)
    assert first.data not in file.getvalue()


def test_what_breaks_off_leaves_what_came_and_says_so(
    breaking: LiveServer, make_client: MakeClient, tmp_path: Path
) -> None:
    target = tmp_path / "fox.mp4"
    target.write_bytes(b"an older one")
    with make_client(breaking.url) as client, client.generate("a fox") as video, pytest.raises(WorkerLost) as caught:
        video.save(target)
    part = tmp_path / "fox.mp4.part"
    assert caught.value.__notes__ == [f"1.31 s of video are in {part} and play"]
    assert kinds(part.read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 2]
    assert target.read_bytes() == b"an older one"


@pytest.mark.parametrize("target", ["/nonexistent/fox.mp4", "/dev/full", "."])
def test_a_target_that_cannot_be_written(shared: LiveServer, make_client: MakeClient, target: str) -> None:
    with make_client(shared.url) as client, client.generate(**VIDEO) as video, pytest.raises(OSError, match=r"Errno"):
        video.save(target)


def test_pictures_come_decoded_with_their_times(painted: LiveServer, make_client: MakeClient) -> None:
    with make_client(painted.url) as client, client.generate(**VIDEO) as video:
        frames = list(video.frames())
    assert [number_in(frame.to_ndarray(format="yuv420p")) for frame in frames] == list(range(NUM_FRAMES))
    assert [frame.time for frame in frames] == [number / 16 for number in range(NUM_FRAMES)]
    assert frames[0].to_ndarray(format="rgb24").shape == (240, 416, 3)


def test_without_pyav_the_error_names_the_extra(shared: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with Client(shared.url) as client, client.generate(**VIDEO) as video, pytest.raises(ExtraMissing) as caught:
        list(video.frames())
    assert "pip install 'hiar-client[frames]'" in caught.value.message


def test_pictures_of_a_video(painted: LiveServer, make_client: MakeClient, tmp_path: Path) -> None:
    with make_client(painted.url) as client:
        job = client.videos.wait(client.videos.create(**VIDEO).id)
        assert client.videos.content(job.id, "thumbnail")[8:12] == b"WEBP"
        assert client.videos.download(job.id, tmp_path / "sheet.jpg", "spritesheet") > 0
        assert (tmp_path / "sheet.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_a_video_begins_with_a_picture_or_a_clip(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client:
        num_before = len(shared.engine.workers.pictures)
        with client.generate(**VIDEO, image=still(gradient(64, 48))) as video:
            assert next(iter(video)).block == 0
        client.videos.wait(client.videos.create(**VIDEO, video=clip(greys(24), 16)).id)
        sizes = [pixels.num_frames for pixels in shared.engine.workers.pictures[num_before:]]
        assert sizes[0] == 1 and sizes[1] > 1


def test_media_are_bytes_paths_or_open_files_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "star.png"
    path.write_bytes(b"a picture")
    for media in (b"a picture", path, str(path), io.BytesIO(b"a picture")):
        content = requests.create("a fox", {"image": media}).content
        assert content == b'{"prompt": "a fox", "image": "YSBwaWN0dXJl"}'
    with pytest.raises(BadMedia, match=r"image: cannot read .*none\.png: No such file") as missing:
        requests.create("a fox", {"image": tmp_path / "none.png"})
    assert missing.value.param == "image"
    endless = requests.create("a fox", {"seconds": math.inf, "size": None})
    assert endless.content == b'{"prompt": "a fox", "seconds": null}'
