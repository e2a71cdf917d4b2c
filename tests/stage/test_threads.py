"""Workers on CPUs share the cores that the process may use, not the host's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine import machine
from engine.engine_config import EngineConfig
from engine.manifest import read_manifest
from engine.stage import build

TINY = read_manifest(Path(__file__).parents[2] / "models" / "tiny")


@pytest.fixture(autouse=True)
def num_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a container, on a host where torch takes 64 threads and the process is pinned to none."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    torch.set_num_threads(64)
    return tmp_path / "cpu.max"


def threads_of(*devices: str, num_threads: int | None = None) -> int:
    build.set_num_threads(EngineConfig(manifest=TINY, devices=devices, num_threads=num_threads))
    return torch.get_num_threads()


@pytest.mark.parametrize(
    ("devices", "threads"),
    [(("cpu",), 4), (("cpu", "cpu"), 2), (("cpu",) * 3, 1), (("cpu",) * 8, 1), (("cuda:0", "cuda:1"), 4)],
    ids=["one worker", "two", "three", "more than cores", "two GPUs, which share what they do on the host"],
)
def test_workers_share_what_a_container_may_use(quota: Path, devices: tuple[str, ...], threads: int) -> None:
    quota.write_text("400000 100000\n")
    assert threads_of(*devices) == threads


def test_cores_that_the_process_is_pinned_to(quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert threads_of("cpu", "cpu") == 1
    torch.set_num_threads(64)
    assert threads_of("cpu") == 2


def test_one_worker_takes_no_more_than_torch_would(quota: Path) -> None:
    """Which leaves hyperthreads out."""
    torch.set_num_threads(3)
    assert threads_of("cpu") == 3


def test_a_number_that_is_asked_for(quota: Path) -> None:
    quota.write_text("100000 100000\n")
    assert threads_of("cpu", "cpu", num_threads=5) == 5
