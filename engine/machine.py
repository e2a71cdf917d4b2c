"""What this machine lets the process use: cores and memory, as the kernel and control groups allow. Knows no GPU.

A group has a folder for each controller: of version 2 one for all of them, of version 1 one each, in places of their
own. A limit holds for all groups below, so those above count too, as far as they can be seen from inside a container.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from engine.errors import StartError

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores that the process may use, which a host may have many more of; at least one."""
    quotas = (quota for folder in _groups("cpu") if (quota := _quota(folder)) is not None)
    return max(1, min((len(os.sched_getaffinity(0)), *map(math.ceil, quotas))))


def free_host_bytes() -> int:
    """Memory that can still be allocated. Raises ``StartError`` where the kernel does not tell."""
    groups = (left for folder in _groups("memory") if (left := _left_bytes(folder)) is not None)
    return max(0, min((_available_bytes(), *groups)))


def _groups(controller: str) -> Iterator[Path]:
    """Folders with this controller's files: of the process's own group, and of those above it."""
    for line in OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.is_file() else ("0::/",):
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = next((place for place in (CGROUP / controllers, CGROUP / controller) if place.is_dir()), CGROUP)
        own = PurePosixPath(name.lstrip("/"))
        for group in () if ".." in own.parts else (own, *own.parents):  # a group beside the container's is not here
            yield mount / group


def _quota(folder: Path) -> float | None:
    """Cores that a group may use at a time; None is any number."""
    if (both := _text(folder / "cpu.max")) is not None:
        most, _, period = both.partition(" ")
    else:
        most, period = _text(folder / "cpu.cfs_quota_us") or "-1", _text(folder / "cpu.cfs_period_us") or ""
    return None if most in {"max", "-1"} else int(most) / int(period)


def _left_bytes(folder: Path) -> int | None:
    """Memory that a group may still take; None is any amount."""
    most, used = _text(folder / "memory.max"), _text(folder / "memory.current")
    if most is None or used is None:
        most, used = _text(folder / "memory.limit_in_bytes"), _text(folder / "memory.usage_in_bytes")
    if most is None or used is None or most == "max":
        return None
    return int(most) - int(used) + _cached_bytes(folder)


def _cached_bytes(folder: Path) -> int:
    """What the group's memory holds of files; the kernel gives it back when a program asks for more."""
    lines = (_text(folder / "memory.stat") or "").splitlines()
    sizes = {name: int(size) for name, _, size in (line.partition(" ") for line in lines)}
    below = "total_" if "total_active_file" in sizes else ""
    return sizes.get(f"{below}active_file", 0) + sizes.get(f"{below}inactive_file", 0)


def _text(file: Path) -> str | None:
    """What a file of the kernel says; None where there is none, or it is not for this process."""
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _available_bytes() -> int:
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise StartError(f"{MEMINFO} does not say how much memory is available")
