"""What this machine lets the process use: cores and memory, as the kernel and the control group allow. Knows no GPU."""

import math
import os
from pathlib import Path

from engine.errors import StartError

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores that the process may use, which a host may have many more of; at least one."""
    cores = len(os.sched_getaffinity(0))
    quota = CGROUP / "cpu.max"
    if quota.is_file():
        most, _, period = quota.read_text().partition(" ")
        if most != "max":
            cores = min(cores, math.ceil(int(most) / int(period)))
    return max(1, cores)


def free_host_bytes() -> int:
    """Memory that can still be allocated. Raises ``StartError`` where the kernel does not tell."""
    bounds = [_available_bytes()]
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        bounds.append(int(most) - int(used.read_text()) + _cached_bytes())
    return max(0, min(bounds))


def _cached_bytes() -> int:
    """What the group's memory holds of files; the kernel gives it back when a program asks for more."""
    lines = (CGROUP / "memory.stat").read_text().splitlines()
    sizes = {name: int(size) for name, _, size in (line.partition(" ") for line in lines)}
    return sizes["active_file"] + sizes["inactive_file"]


def _available_bytes() -> int:
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise StartError(f"{MEMINFO} does not say how much memory is available")
