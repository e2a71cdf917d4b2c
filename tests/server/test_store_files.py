"""What a video's files hold, wherever they lie; and records as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from engine import Fragment, InitSegment, Pace, PromptAt, Recovery, VideoRequest
from engine.request import Pixels, TensorBytes
from server.videos.store.folders import Folder, LocalFolder, ObjectFolder, folder_of
from server.videos.store.journal import Kind, block_record, contents_of, init_record, record
from server.videos.store.plain import from_plain, to_plain

INIT = InitSegment(b"ftypmoov", "avc1.42")


def fragment(block: int, data: bytes = b"") -> Fragment:
    return Fragment(block=block, data=data or bytes([block]) * 50, num_frames=12, start_s=block * 0.75, duration_s=0.75)


@pytest.fixture(params=["local", "objects"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return LocalFolder(tmp_path / "videos")
    system = fsspec.filesystem("memory")
    system.store.clear()
    return ObjectFolder(system, "/videos")


def test_blocks_come_back_as_they_were(folder: Folder) -> None:
    life = folder.begin("video_a")
    life.append(init_record(INIT) + record(Kind.PROMPT, {"block": 0, "text": "é"}) + block_record(fragment(0)))
    life.append(block_record(fragment(1)))
    life.sync()
    life.close()
    found = contents_of(folder.sources("video_a"), checks_all=True)
    assert (found.init, found.prompts, found.num_bytes) == (INIT, [(0, "é")], 100)
    assert [found.fragment(block) for block in range(2)] == [fragment(0), fragment(1)]
    assert folder.names() == ["video_a"]
    folder.remove("video_a")
    assert folder.sources("video_a") == [] and folder.names() == []
    folder.remove("video_a")


def test_a_later_life_says_what_holds(folder: Folder) -> None:
    late, begun = folder.begin("video_a"), init_record(INIT)
    late.append(begun + b"".join(block_record(fragment(block)) for block in range(3)))
    again = folder.begin("video_a")
    again.append(record(Kind.RECOVERY, {"block": 2, "exact": False}) + block_record(fragment(2, b"again")))
    late.append(b"".join(block_record(fragment(block)) for block in range(3, 6)))  # it does not know yet
    again.append(block_record(fragment(3, b"more")))
    found = contents_of(folder.sources("video_a"))
    assert [found.fragment(block).data for block in range(4)] == [b"\0" * 50, b"\1" * 50, b"again", b"more"]
    assert len(found.blocks) == 4 and found.recoveries == [Recovery(block=2, exact=False)]
    late.close()
    again.close()


def test_what_is_not_whole_is_not_read_wherever_it_is_cut(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    life = folder.begin("video_a")
    life.append(init_record(INIT) + block_record(fragment(0)))
    one = (tmp_path / "video_a" / "000000").stat().st_size
    life.append(block_record(fragment(1)))
    life.close()
    file = tmp_path / "video_a" / "000000"
    whole = file.read_bytes()
    for cut in range(one, len(whole)):
        file.write_bytes(whole[:cut])
        assert len(contents_of(folder.sources("video_a")).blocks) == 1
        file.write_bytes(whole[:cut] + bytes(len(whole) - cut))  # as a machine's end may leave it
        found = contents_of(folder.sources("video_a"), checks_all=True)
        assert len(found.blocks) == (2 if whole[cut:].strip(b"\0") == b"" else 1)


def test_a_file_that_was_cut_takes_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = LocalFolder(tmp_path).begin("video_a")
    life.append(block_record(fragment(0)))

    class Full:
        """A file with room for ten bytes."""

        def __init__(self, file: object) -> None:
            self._file, self._room = file, 10

        def write(self, data: memoryview) -> int:
            if self._room == 0:
                raise OSError(28, "No space left on device")
            written = self._file.write(data[: self._room])  # type: ignore[attr-defined]
            self._room -= written
            return int(written)

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    monkeypatch.setattr(life, "_file", Full(life._file))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space"):
        life.append(block_record(fragment(1)))
    life.close()
    assert (tmp_path / "video_a" / "000000").read_bytes() == block_record(fragment(0))


def test_a_url_names_a_folder(tmp_path: Path) -> None:
    assert isinstance(folder_of(str(tmp_path / "a")), LocalFolder)
    assert isinstance(folder_of(f"file://{tmp_path}/a"), LocalFolder)
    assert isinstance(folder_of("memory://a"), ObjectFolder)
    with pytest.raises(ValueError, match="nosuch"):
        folder_of("nosuch://a")


def test_a_request_comes_back_from_json_with_its_bytes_aside() -> None:
    latents = TensorBytes(dtype="float32", shape=(1, 2), data=b"12345678")
    request = VideoRequest(
        prompts=(PromptAt(at_s=0.0, text="é"), PromptAt(at_s=1.5, text="b")),
        width_px=832,
        height_px=480,
        fps=16,
        seconds=None,
        seed=2**64 - 1,
        pace=Pace.FAST,
        owner="key alice",
        initial=(latents, replace(latents, data=b"abcdefgh")),
        remixed_from="video_b",
    )
    blobs: list[bytes] = []
    text = json.dumps(to_plain(request, blobs))
    assert blobs == [b"12345678", b"abcdefgh"]
    assert from_plain(VideoRequest, json.loads(text), blobs) == request
    begun = replace(request, initial=(), start=Pixels(num_frames=1, width_px=2, height_px=1, data=b"123456"))
    blobs = []
    plain = to_plain(begun, blobs)
    assert from_plain(VideoRequest, plain, blobs) == begun
    told = from_plain(VideoRequest, plain, None)
    assert told.start is not None and told.start.data == b""
    blobs = []
    older = json.loads(json.dumps(to_plain(request, blobs)))
    del older["remixed_from"]
    assert from_plain(VideoRequest, older, blobs) == replace(request, remixed_from=None)
    with pytest.raises(KeyError):
        from_plain(VideoRequest, {**older, "prompts": [{"at_s": 0.0}]}, blobs)
