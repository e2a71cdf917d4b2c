"""``hiar generate`` and ``hiar watch`` as processes, against the real HTTP server on workers that need no process."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import EngineOptions, WorkerLost
from hiar_client.boxes import split
from tests.clients.patient import serving
from tests.clients.running import COMMAND, environment, hiar
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually

MEDIA = ("ftyp", "moov", "moof", "mdat")


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[LiveServer]:
    with serving(Behaviour(block_s=0.1)) as server:
        yield server


def media(data: bytes) -> list[str]:
    return [box.kind for box in split(data) if box.kind in MEDIA]


def kinds(data: bytes) -> list[str]:
    return [box.kind for box in split(data)]


def test_a_file_is_named_by_its_prompt_and_none_is_replaced(live: LiveServer, tmp_path: Path) -> None:
    words = ("generate", "A large, red circle!", "--seconds", "2")
    first, second = (hiar(live, *words, cwd=tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    files = [tmp_path / "a-large-red-circle.mp4", tmp_path / "a-large-red-circle-2.mp4"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert kinds(files[0].read_bytes()) == ["ftyp", "moov", "sidx", "free", *["moof", "mdat"] * 3, "mfra"]
    last_line = second.stderr.decode().splitlines()[-1]
    assert last_line.startswith("a-large-red-circle-2.mp4: 2.00 s of video, 32 frames, ")
    assert "first fragment after" in last_line
    assert first.stdout == b"" and b"\x1b" not in first.stderr
    assert [made.request.pace.value for made in live.engine.opened[-2:]] == ["fast", "fast"]
    assert hiar(live, *words, "-y", "-q", cwd=tmp_path).stderr == b""
    assert len(list(tmp_path.iterdir())) == 2


def test_a_video_on_stdout_is_what_the_server_sends(live: LiveServer) -> None:
    done = hiar(live, "generate", "-", "--at", "1", "a cat", "--seconds", "1.5", "-o", "-", "--json", input=b"a fox\n")
    assert done.returncode == 0, done.stderr
    assert kinds(done.stdout) == ["ftyp", "moov", *["moof", "mdat"] * 3]
    request = live.engine.opened[-1].request
    assert [(prompt.at_s, prompt.text) for prompt in request.prompts] == [(0, "a fox"), (1, "a cat")]
    assert request.pace.value == "realtime"
    told = json.loads(done.stderr.decode().splitlines()[-1])
    assert (told["seconds"], told["end_reason"], told["exit_status"]) == (1.5, "completed", 0)


def test_a_refusal_is_one_line_and_leaves_the_file_alone(live: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "old.mp4"
    target.write_bytes(b"old")
    done = hiar(live, "generate", "a fox", "--size", "8x8", "-o", str(target))
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert b"size: " in done.stderr
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("target", ["/dev/full", "."])
def test_a_target_that_cannot_be_written(live: LiveServer, target: str) -> None:
    done = hiar(live, "generate", "a fox", "--seconds", "1", "-o", target)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0].startswith(f"hiar: cannot write {target}: ")
    assert b"Traceback" not in done.stderr


def test_a_failure_on_the_way_leaves_a_playable_file(tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    with serving(Behaviour(fail_at=2, failure=WorkerLost("a worker died"))) as live:
        done = hiar(live, "generate", "a fox", "-o", str(target))
    assert done.returncode == 3
    assert b"hiar: a worker died [worker_lost]\n" in done.stderr
    assert media(target.read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_playable_file_and_ends_the_video(
    slow: LiveServer, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    target = tmp_path / "fox.mp4"
    command = [*COMMAND, "generate", "a fox", "-o", str(target)]
    with subprocess.Popen(command, env=environment(slow), stderr=subprocess.PIPE) as process:
        eventually(lambda: target.exists() and target.stat().st_size > 7500, within_s=30)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in told and b"hiar: stopped\n" in told
    assert b"s of video" in told.splitlines()[-1]
    eventually(lambda: slow.engine.load.running == 0, within_s=30)
    assert kinds(target.read_bytes())[-2:] == ["mdat", "mfra"]


def test_a_server_that_stops_cuts_the_video_short(tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    with serving(Behaviour(block_s=0.1)) as live:
        command = [*COMMAND, "generate", "a fox", "-o", str(target)]
        with subprocess.Popen(command, env=environment(live), stderr=subprocess.PIPE) as process:
            eventually(lambda: target.exists() and target.stat().st_size > 7500, within_s=30)
            live.signal()
            _, told = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"the server is being stopped [drain]" in told
    assert media(target.read_bytes())[-1] == "mdat"


def test_a_reader_that_closes_the_pipe_ends_the_command(slow: LiveServer) -> None:
    command = [*COMMAND, "generate", "a fox", "-o", "-"]
    with subprocess.Popen(command, env=environment(slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(60) == 0
    assert b"Traceback" not in told
    eventually(lambda: slow.engine.load.running == 0, within_s=30)


def on_terminal(live: LiveServer, *arguments: str) -> tuple[int, str]:
    """Run it with a terminal for all that it writes."""
    mine, its = pty.openpty()
    variables = {**environment(live), "TERM": "xterm"}
    with subprocess.Popen([*COMMAND, *arguments], env=variables, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = b""
        try:
            while data := os.read(mine, 65536):
                written += data
        except OSError:
            pass  # Linux tells so that the other end is closed
        os.close(mine)
    return process.returncode, written.decode()


def test_a_terminal_gets_a_bar_and_never_video(slow: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    status, written = on_terminal(slow, "generate", "a fox", "--seconds", "3", "-o", str(target))
    assert status == 0
    assert re.search(r"\r\x1b\[2K\[#+-+\]  \d\d% \d\.\d s of video, \d blocks, \d+\.\d\dx realtime", written)
    assert f"{target}: 3.00 s of video" in written
    status, written = on_terminal(slow, "generate", "a fox", "-o", "-")
    assert status == 2 and "'-o - | ffplay -'" in written and "moov" not in written


def test_a_waiting_video_tells_its_place_and_leaves_it(tmp_path: Path) -> None:
    with serving(Behaviour(block_s=0.1), engine=EngineOptions(max_videos=1)) as live, live.holding():
        command = [*COMMAND, "generate", "a fox", "--seconds", "1", "-o", str(tmp_path / "fox.mp4")]
        with subprocess.Popen(command, env=environment(live), stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == b"hiar: waiting, place 1 in the queue\n"
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        # Nothing of it stays in the queue, though a lost connection may be resumed for a while.
        assert live.engine.load.waiting == 0
    assert process.returncode == 130 and told == b"hiar: stopped\n"


def test_a_video_is_watched_from_anywhere(live: LiveServer, tmp_path: Path) -> None:
    made = hiar(live, "videos", "create", "a fox", "--seconds", "3").stdout.decode().strip()
    whole = hiar(live, "watch", made, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert media((tmp_path / "a-fox.mp4").read_bytes()) == ["ftyp", "moov", *["moof", "mdat"] * 5]
    rest = hiar(live, "watch", made, "--from", "3", "-o", "-")
    assert media(rest.stdout) == ["ftyp", "moov", *["moof", "mdat"] * 2]
    newest = hiar(live, "watch", made, "--from", "live", "-o", "-")
    assert media(newest.stdout) == ["ftyp", "moov", "moof", "mdat"]
