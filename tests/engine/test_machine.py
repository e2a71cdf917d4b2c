"""What the kernel and the control group allow, whatever the host has."""

import os
from pathlib import Path

import pytest

from engine import machine
from engine.errors import StartError

GIB = 2**30


@pytest.fixture(autouse=True)
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group without limits, on a host of 64 cores and 32 GiB of which 24 are available."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {32 * GIB // 1024} kB\nMemAvailable: {24 * GIB // 1024} kB\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 64), ("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_cores_are_those_of_the_quota(group: Path, quota: str | None, cores: int) -> None:
    if quota is not None:
        (group / "cpu.max").write_text(quota + "\n")
    assert machine.usable_cores() == cores


def test_cores_are_those_that_the_process_is_pinned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert machine.usable_cores() == 2


def put(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_quota_holds_for_the_groups_below(group: Path) -> None:
    """As systemd makes them: the service has none, its slice has one."""
    (group / "own").write_text("0::/studio.slice/hiar.service\n")
    put(group / "studio.slice" / "hiar.service", cpu__max="max 100000")
    assert machine.usable_cores() == 64
    put(group / "studio.slice", cpu__max="300000 100000")
    assert machine.usable_cores() == 3
    put(group / "studio.slice" / "hiar.service", cpu__max="100000 100000")
    assert machine.usable_cores() == 1


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("inside", [True, False], ids=["in a container", "on the host"])
def test_a_quota_of_control_groups_of_version_1(group: Path, mount: str, inside: bool) -> None:
    """A container sees its own group at the root, and may be told a name that is only the host's."""
    (group / "own").write_text(f"9:memory:/docker/0a1b\n4:{mount}:/docker/0a1b\n3:cpuset:/\n0::/\n")
    own = group / mount if inside else group / mount / "docker" / "0a1b"
    put(own, cpu__cfs_quota_us=-1, cpu__cfs_period_us=100_000)
    assert machine.usable_cores() == 64
    put(own, cpu__cfs_quota_us=250_000, cpu__cfs_period_us=100_000)
    assert machine.usable_cores() == 3


def test_memory_of_control_groups_of_version_1(group: Path) -> None:
    (group / "own").write_text("9:memory:/docker/0a1b\n0::/\n")
    own = group / "memory" / "docker" / "0a1b"
    put(own, memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=20 * GIB)
    assert machine.free_host_bytes() == 24 * GIB
    put(own, memory__limit_in_bytes=16 * GIB, memory__usage_in_bytes=15 * GIB)
    (own / "memory.stat").write_text(f"active_file 0\ntotal_active_file {GIB}\ntotal_inactive_file {2 * GIB}\n")
    assert machine.free_host_bytes() == 4 * GIB


def test_a_group_beside_the_containers_is_not_looked_for(group: Path) -> None:
    (group / "own").write_text("0::/../other\n")
    put(group, cpu__max="100000 100000")
    assert machine.usable_cores() == 64


def test_memory_is_what_the_kernel_says_is_available(group: Path) -> None:
    assert machine.free_host_bytes() == 24 * GIB
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{20 * GIB}\n")
    assert machine.free_host_bytes() == 24 * GIB


def test_memory_of_a_group_is_its_limit_and_files_in_it_can_go(group: Path) -> None:
    (group / "memory.max").write_text(f"{16 * GIB}\n")
    (group / "memory.current").write_text(f"{15 * GIB}\n")
    (group / "memory.stat").write_text(f"anon {2 * GIB}\nactive_file {1 * GIB}\ninactive_file {12 * GIB}\n")
    assert machine.free_host_bytes() == 14 * GIB


def test_a_kernel_that_does_not_tell_is_an_error(group: Path) -> None:
    (group / "meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(StartError, match="does not say how much memory is available"):
        machine.free_host_bytes()
