"""Surroundings in which a start works all the same, or ends with one sentence that names the cause and what to do."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import server.main
from engine import StartError
from engine.fleet import scratch
from server.settings import SettingError, read_settings
from server.videos.store import opening

TINY = Path(__file__).parents[2] / "models" / "tiny"
STRANGER = 65534


@contextmanager
def as_stranger() -> Iterator[None]:
    """Without the rights of the user who made the files; who is not root loses them by their modes."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that strangers may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def refusal(monkeypatch: pytest.MonkeyPatch, *flags: object) -> str:
    """What ``main`` ends with, before it listens."""
    monkeypatch.setattr(server.main, "_configure_logging", lambda *words: None)
    with as_stranger(), pytest.raises(SystemExit) as ended:
        server.main.main(["--port", "0", "--data", "memory", *map(str, flags)])
    assert isinstance(ended.value.code, str)
    assert len(ended.value.code.splitlines()) == 1
    return ended.value.code


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=["shut", "not to be entered", "not to be listed"])
@pytest.mark.parametrize("where", ["", "above"])
def test_a_model_folder_that_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, place: Path, where: str, mode: int
) -> None:
    model = Path(shutil.copytree(TINY, place / "above" / "model"))
    shut = place / where if where else model
    if where and mode & 0o100:
        return  # what is below can be reached
    shut.chmod(mode)
    said = refusal(monkeypatch, "--model", model)
    shut.chmod(0o700)
    assert str(model) in said and "cannot be read: permission denied to user" in said and "let it read" in said


@pytest.mark.parametrize("file", ["manifest.json", "transformer.safetensors", "tokenizer.json"])
def test_a_file_of_a_model_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, place: Path, file: str) -> None:
    model = Path(shutil.copytree(TINY, place / "model"))
    model.chmod(0o755)
    (model / file).chmod(0)
    assert f"{model / file} cannot be read: permission denied to user" in refusal(monkeypatch, "--model", model)


def test_a_file_where_the_model_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "--model", TINY / "manifest.json")
    assert "manifest.json is a file; give the folder that it lies in" in said


def test_keys_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    keys = place / "keys"
    keys.touch(mode=0)
    assert f"--keys {keys} cannot be read: Permission denied; give this user" in refusal(monkeypatch, "--keys", keys)
    assert f"--keys {place} cannot be read: Is a directory" in refusal(monkeypatch, "--keys", place)


def unstored(*flags: object, home: Path | None = None) -> str:
    """Why no store is opened."""
    settings = read_settings([*map(str, flags)], {})
    with as_stranger(), pytest.raises(SettingError) as refused:
        opening.open_store(settings, {} if home is None else {"XDG_STATE_HOME": str(home)})
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_folder_of_videos_that_may_not_be_written_to(place: Path) -> None:
    place.chmod(0o555)
    expected = f"{place / 'hiar'} cannot be written (Permission denied); give another folder, or --data memory"
    assert unstored(home=place) == f"--data: {expected}"
    assert unstored("--data", place / "hiar") == f"--data: {expected}"


def test_files_of_videos_that_may_not_be_written_to(place: Path) -> None:
    """A store of a user before, as root's is."""
    (place / "data" / "videos").mkdir(parents=True)
    (place / "data").chmod(0o777)
    (place / "data" / "videos").chmod(0o555)
    assert f"{place / 'data' / 'videos'} cannot be used (user" in unstored("--data", place / "data")


def test_a_file_where_the_folder_of_videos_should_be(place: Path) -> None:
    (file := place / "file").touch()
    assert unstored("--data", file).startswith(f"--data: {file} cannot be written (it is no folder); ")
    assert unstored("--data", file / "x").startswith(f"--data: {file / 'x'} cannot be written (it is no folder); ")
    place.chmod(0o777)
    assert f"--store: {file} cannot be used (it is no folder)" in unstored("--store", file, "--data", place / "data")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nor a line in the system's list of users
    assert unstored() == ("--data: this user has no home folder; give a folder by its whole name, or --data memory")
    assert unstored("--data", "~/x").startswith("--data: ~/x is below no home folder; ")


def test_sockets_find_a_place_whatever_the_name_of_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    long = place / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = scratch.scratch_folder(for_sockets=True)
    inner = folder / "pymp-12345678"
    inner.mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(inner / "listener-12345678"))
    scratch.remove(folder)
    assert scratch.scratch_folder().parent == long, "other files stay where they should be"


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_temporary_place_with_room_for_sockets(
    monkeypatch: pytest.MonkeyPatch, place: Path, over: int
) -> None:
    room = scratch.MAX_SOCKET_NAME - len(scratch._SOCKET_IN_PLACE) - len(str(place)) - 1
    inner = place / ("d" * (room + over))
    inner.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(inner))
    folder = scratch.scratch_folder(for_sockets=True)
    assert (folder.parent == inner) is (over == 0)
    scratch.remove(folder)


def test_without_a_short_place_the_cause_is_named(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    long = place / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(scratch, "SHORT_PLACES", (str(place / "none"),))
    with pytest.raises(StartError, match=f"TMPDIR is {long}, which has .* set it to a folder of 61 bytes at most"):
        scratch.scratch_folder(for_sockets=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_metrics_stay_in_the_process(name: str) -> None:
    """A folder for several that does not exist would end the start; another would keep counts of former starts."""
    program = "import server.metrics.families as f; f.Families(4); from server.metrics import IGNORED; print(*IGNORED)"
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, name: "/no/such/folder"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.stdout, made.stderr) == (f"{name}\n", "")
