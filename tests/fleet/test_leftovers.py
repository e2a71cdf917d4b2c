"""What a front leaves: nothing when it exits; no process when it is killed, and folders that the next one removes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.fleet import fork_server, scratch

pytestmark = pytest.mark.in_turn

FRONT = """
import asyncio
import sys
from engine import Engine
from engine.engine_config import Rehearsal
from tests.front.making import config

async def main():
    engine = Engine(config(devices=("cpu", "cpu"), rehearsal=Rehearsal(pass_s=0.01)))
    await engine.start()
    print("started", flush=True)
    await engine.wait_ready()
    print(*engine.fleet.worker_pids, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if sys.argv[1:] == ["stop"]:
        await engine.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""
LIMIT_S = 1.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A short name: it will hold sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def front(place: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process that starts an engine, and stops it and exits when it reads a line."""
    environment = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", FRONT, "stop"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()


def worker_pids(process: "subprocess.Popen[str]") -> list[int]:
    """Of a front, once it serves."""
    assert process.stdout is not None
    return [int(pid) for pid in process.stdout.readline().split()]


def children_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def say_stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def assert_gone_in_time(processes: list[psutil.Process]) -> None:
    began_s = time.monotonic()
    while left := alive(processes):
        assert time.monotonic() - began_s < LIMIT_S, [(one.pid, one.cmdline()) for one in left]
        time.sleep(0.01)


@pytest.mark.slow
def test_of_a_front_that_exits_nothing_is_left(place: Path) -> None:
    with front(place) as process:
        workers = worker_pids(process)
        children = children_of(process)
        assert {*workers} < {child.pid for child in children} and len(children) >= len(workers) + 1
        (forking,) = {psutil.Process(psutil.Process(pid).ppid()) for pid in workers}
        assert any(place.glob("hiar-*/pymp-*"))
        say_stop(process)
        assert process.wait(timeout=30) == 0
        assert alive([forking]) == [], "it ends before the front does"
        assert_gone_in_time(children)
        assert list(place.iterdir()) == []


@pytest.mark.slow
def test_of_a_front_that_is_killed_no_process_is_left_and_the_next_removes_its_folders(place: Path) -> None:
    with front(place) as process:
        stopped = worker_pids(process)[0]
        children = children_of(process)
        os.kill(stopped, signal.SIGSTOP)  # it can do nothing for its own end
        process.kill()
        assert_gone_in_time(children)
    left = {folder.name for folder in place.iterdir()}
    assert len(left) == 2 and all(name.startswith("hiar-") for name in left)
    with front(place) as process:
        worker_pids(process)
        assert left.isdisjoint(folder.name for folder in place.iterdir())
        say_stop(process)
        assert process.wait(timeout=30) == 0
    assert list(place.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_of_a_front_that_is_killed_while_workers_import_no_process_is_left(place: Path, after_s: float) -> None:
    with front(place) as process:
        while not any("forkserver" in " ".join(child.cmdline()) for child in children_of(process)):
            time.sleep(0.01)
        children = children_of(process)
        time.sleep(after_s)
        process.kill()
        assert_gone_in_time(children)


def test_a_server_that_is_ended_is_gone_and_left_to_multiprocessing_to_reap() -> None:
    with subprocess.Popen(["sleep", "60"]) as server:
        fork_server._end(server.pid)
        assert psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
        assert server.wait(timeout=1) == -signal.SIGKILL
    fork_server._end(server.pid)  # multiprocessing had started another one meanwhile
    fork_server._end(os.getppid())  # no child of ours, so none of our business


# --- whose folder it is ---


def folder_of(place: Path, name: str, owner: str | None) -> Path:
    folder = place / f"hiar-{name}"
    (folder / "pymp-x").mkdir(parents=True)
    if owner is not None:
        (folder / scratch.OWNER).write_text(owner)
    return folder


def test_only_folders_of_dead_processes_are_abandoned(tmp_path: Path) -> None:
    namespace, pid, started = scratch._name_of(os.getpid()).split()
    with subprocess.Popen(["sleep", "60"]) as other:
        living = scratch._name_of(other.pid)
        folder_of(tmp_path, "living", living)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert [folder.name for folder in scratch.abandoned(tmp_path)] == ["hiar-living"], "a zombie is dead"
    dead = tmp_path / "hiar-living"
    earlier = folder_of(tmp_path, "earlier", f"{namespace} {pid} {int(started) - 1}")
    folder_of(tmp_path, "ours", f"{namespace} {pid} {started}")
    folder_of(tmp_path, "elsewhere", living.replace(namespace, "pid:[1]"))
    folder_of(tmp_path, "unnamed", None)
    folder_of(tmp_path, "garbled", "1 2")
    folder_of(tmp_path, "other", living).rename(tmp_path / "other-of-that-name")
    (tmp_path / "hiar-link").symlink_to(dead)
    (tmp_path / "hiar-file").write_text(living)
    assert {*scratch.abandoned(tmp_path)} == {dead, earlier}


def test_a_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "dead", f"{scratch._namespace()} {2**22 + 1} 1")
    assert len(list(scratch.abandoned(tmp_path))) == 1
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert list(scratch.abandoned(tmp_path)) == []


def test_a_new_folder_names_this_process_and_the_dead_ones_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = folder_of(tmp_path, "dead", f"{scratch._namespace()} {2**22 + 1} 1")
    made = scratch.scratch_folder()
    assert not dead.exists() and made.parent == tmp_path
    assert (made / scratch.OWNER).read_text() == scratch._name_of(os.getpid())
    assert list(scratch.abandoned(tmp_path)) == []
    scratch.remove(made)
    assert list(tmp_path.iterdir()) == []
