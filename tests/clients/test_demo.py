"""The demonstration against the real server process on instant workers: what it writes, and that nothing stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clients import demo
from hiar_client.boxes import split

ROOT = Path(__file__).parents[2]
INSTANT = (sys.executable, "-m", "tests.server.serve_instant")

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]


def instant_server(pace: str) -> list[str]:
    return [*INSTANT, pace]


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]


def test_writes_a_video_and_leaves_no_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo.mp4"
    before = children()
    demo.run(instant_server("0.01"), "a fox", 2.0, out)
    kinds = [box.kind for box in split(out.read_bytes())]
    assert kinds[:2] == ["ftyp", "moov"] and "mdat" in kinds
    said = capfd.readouterr().err
    assert "first fragment after" in said and "frames/s generated" in said and str(out) in said
    assert children() == before


@pytest.mark.parametrize(("pace", "reason"), [("broken", "truncated"), ("failing", "a worker died")])
def test_a_failure_is_told_and_leaves_no_process(tmp_path: Path, pace: str, reason: str) -> None:
    before = children()
    with pytest.raises(demo.DemoError, match=reason):
        demo.run(instant_server(pace), "a fox", 2.0, tmp_path / "demo.mp4")
    assert children() == before


def test_a_server_that_cannot_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match="status 3"):
        demo.run([sys.executable, "-c", "import sys; sys.exit(3)"], "a fox", 2.0, tmp_path / "demo.mp4")
    with pytest.raises(demo.DemoError, match="cannot start"):
        demo.run([str(tmp_path / "none")], "a fox", 2.0, tmp_path / "demo.mp4")


def test_a_missing_folder_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match="does not exist"):
        demo.run([str(tmp_path / "none")], "a fox", 2.0, tmp_path / "none" / "demo.mp4")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_too(tmp_path: Path, number: signal.Signals) -> None:
    program = "import sys; from clients import demo; demo.main(sys.argv[1:])"
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    server = bin_folder / "hiar-server"
    server.write_text(f'#!/bin/sh\nexec {" ".join(INSTANT)} 0.5 "$@"\n')
    server.chmod(0o755)
    program = f"import sys; sys.executable = {str(bin_folder / 'python')!r}; {program}"
    command = [sys.executable, "-c", program, "--seconds", "600", "--out", str(tmp_path / "demo.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            started = wait_for_video(process, tmp_path / "demo.mp4")
        finally:
            os.kill(process.pid, number)
        assert process.wait(30) == 130
    assert not [pid for pid in started if psutil.pid_exists(pid)]


def wait_for_video(process: subprocess.Popen[bytes], out: Path) -> list[int]:
    """Wait until video arrives. Returns the process ids of the server."""
    until_s = time.monotonic() + 30
    while not (out.exists() and out.stat().st_size):
        assert process.poll() is None and time.monotonic() < until_s
        time.sleep(0.05)
    started = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert started
    return started
