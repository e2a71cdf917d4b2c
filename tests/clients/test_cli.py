"""The ``hiar`` command as a process, against the real HTTP server on workers that need no process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import WorkerLost
from hiar_client.boxes import split
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn

COMMAND = [sys.executable, "-c", "from hiar_client.cli import main; main()"]
ROOT = Path(__file__).parents[2]


def environment(live: LiveServer) -> dict[str, str]:
    return {**os.environ, "HIAR_URL": live.url, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def hiar(live: LiveServer, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*COMMAND, *arguments], env=environment(live), capture_output=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


def kinds(data: bytes) -> list[str]:
    return [box.kind for box in split(data)]


def test_a_video_in_a_file(live: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    done = hiar(live, "generate", "a fox", "--seconds", "2", "--seed", "7", "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert kinds(target.read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 3]
    last_line = done.stderr.decode().splitlines()[-1]
    assert last_line.startswith(f"{target}: 2.00 s of video, 32 frames, ")
    assert "first fragment after" in last_line
    assert done.stdout == b""
    assert b"\x1b" not in done.stderr


def test_a_video_on_stdout(live: LiveServer) -> None:
    done = hiar(live, "generate", "a fox", "--seconds", "1", "-o", "-")
    assert done.returncode == 0
    assert kinds(done.stdout) == ["ftyp", "moov", *["moof", "mdat"] * 2]


def test_a_refusal_is_one_line_and_leaves_the_file_alone(live: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "old.mp4"
    target.write_bytes(b"old")
    done = hiar(live, "generate", "a fox", "--size", "8x8", "-o", str(target))
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert b"size: " in done.stderr
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("target", ["/nonexistent/fox.mp4", "/dev/full", "."])
def test_a_target_that_cannot_be_written(live: LiveServer, target: str) -> None:
    done = hiar(live, "generate", "a fox", "--seconds", "1", "-o", target)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert target.rsplit("/", maxsplit=1)[-1].encode() in done.stderr


def test_a_failure_on_the_way_leaves_a_playable_file(tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    with serving(Behaviour(fail_at=2, failure=WorkerLost("a worker died"))) as live:
        done = hiar(live, "generate", "a fox", "-o", str(target))
    assert done.returncode == 1
    assert b"hiar: a worker died [worker_lost]\n" in done.stderr
    assert kinds(target.read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 2]


def test_ctrl_c_leaves_a_playable_file_and_ends_the_video(tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    with serving(Behaviour(block_s=0.1)) as live:
        command = [*COMMAND, "generate", "a fox", "-o", str(target)]
        with subprocess.Popen(command, env=environment(live), stderr=subprocess.PIPE) as process:
            eventually(lambda: target.exists() and target.stat().st_size > 1000, within_s=15)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=10)
        assert process.returncode == 130
        assert b"Traceback" not in told
        assert b"s of video" in told.splitlines()[-1]
        assert eventually(lambda: live.engine.load.running == 0) < 2
    assert kinds(target.read_bytes())[-1] == "mdat"


def test_a_reader_that_closes_the_pipe_ends_the_command() -> None:
    with serving(Behaviour(block_s=0.1)) as live:
        command = [*COMMAND, "generate", "a fox", "-o", "-"]
        with subprocess.Popen(
            command, env=environment(live), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.read(100)
            process.stdout.close()
            assert process.stderr is not None
            told = process.stderr.read()
            assert process.wait(10) == 0
        assert b"Traceback" not in told


def test_status_and_models(live: LiveServer) -> None:
    status, models = hiar(live, "status"), hiar(live, "models")
    assert (status.returncode, models.returncode) == (0, 0)
    assert b"ready, model instant" in status.stdout
    assert b"instant: 416x240, 832x480 at 16 frames/s" in models.stdout


def test_no_server_is_one_line(live: LiveServer) -> None:
    done = hiar(live, "status", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith(b"hiar: no server answers at http://127.0.0.1:1; ")
    assert done.stderr.count(b"\n") == 1


def test_help_has_examples(live: LiveServer) -> None:
    for arguments in (["--help"], ["generate", "--help"]):
        assert b"examples:" in hiar(live, *arguments).stdout
