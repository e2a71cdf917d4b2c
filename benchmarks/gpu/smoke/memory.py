"""What workers were planned to hold, beside what they hold: before their first block, and on GPUs after two videos."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.gpu.record import Table
from benchmarks.gpu.smoke.check import Check, not_run
from engine.request import WorkerMemoryFacts

NAME = "memory"
COLUMNS = ("worker", "device", "item", "planned GB", "measured GB")
IN_ALL = "in all, before the first block"
AFTER_VIDEOS = "in all, after two videos"
ROUNDING = 1.01
"""What a worker may hold, over what was planned."""
SMI_TIMEOUT_S = 20.0
MIB = 1 << 20


class MemoryRow(NamedTuple):
    """One thing that a worker holds."""

    rank: int
    device: str
    item: str
    planned_gb: float
    measured_gb: float

    @property
    def is_total(self) -> bool:
        """Whether it is all that the worker holds."""
        return self.item in {IN_ALL, AFTER_VIDEOS}

    @property
    def is_over(self) -> bool:
        """Whether it is more than planned, where that counts: on a GPU all of it, whose parts may take from each other;
        on a CPU what is counted tensor by tensor, since the total there has the pages of shared libraries.
        """
        decides = self.is_total != (self.device == "cpu")
        return decides and self.measured_gb > ROUNDING * self.planned_gb


def check_memory(workers: Sequence[WorkerMemoryFacts], used_bytes: Mapping[str, int]) -> Check:
    """Whether every worker holds what was planned.

    Args:
        workers: what each was planned to hold, and held before its first block.
        used_bytes: of each device, all that is in use now; devices may be missing.
    """
    rows = memory_rows(workers, used_bytes)
    if not rows:
        return not_run(NAME, "the engine tells no plan of its memory")
    sums = {
        "planned_gb": sum(worker.planned_bytes for worker in workers) / 1e9,
        "measured_gb": sum(worker.measured_bytes for worker in workers) / 1e9,
        "used_gb": sum(row.measured_gb for row in rows if row.item == AFTER_VIDEOS),
    }
    over = [f"worker {row.rank}, {row.item}: more than planned" for row in rows if row.is_over]
    on_cpu = all(worker.device == "cpu" for worker in workers)
    result = f"planned {sums['planned_gb']:.2f} GB, measured {sums['measured_gb']:.2f} GB before the first block"
    result += f" and {sums['used_gb']:.2f} GB after two videos" if used_bytes else ""
    within = "what is counted is within the plan (of a CPU, libraries are not)" if on_cpu else "within the plan"
    unknown = [] if used_bytes or on_cpu else ["nvidia-smi did not tell what is in use after the videos"]
    return Check(
        name=NAME,
        result=f"{result}; {'; '.join(over) or within}",
        passed=not over,
        numbers=sums,
        tables=(Table("Memory of the workers", COLUMNS, tuple(rows)),),
        notes=tuple(unknown),
    )


def memory_rows(workers: Sequence[WorkerMemoryFacts], used_bytes: Mapping[str, int]) -> list[MemoryRow]:
    """Every item of every worker; behind them all of it, at one time or two."""
    rows = []
    for worker in workers:
        planned, measured = dict(worker.planned), dict(worker.measured)
        sizes = [(item, planned.get(item, 0), measured.get(item, 0)) for item in dict.fromkeys([*planned, *measured])]
        sizes.append((IN_ALL, worker.planned_bytes, worker.measured_bytes))
        if worker.device in used_bytes:
            sizes.append((AFTER_VIDEOS, worker.planned_bytes, used_bytes[worker.device]))
        rows += [MemoryRow(worker.rank, worker.device, item, plan / 1e9, found / 1e9) for item, plan, found in sizes]
    return rows


def uuids(devices: tuple[str, ...]) -> dict[str, str]:
    """By which the driver knows each GPU. Opens CUDA: call it in a process of its own."""
    return {name: f"GPU-{torch.cuda.get_device_properties(torch.device(name)).uuid}" for name in devices}


def used_on(uuid_of: Mapping[str, str]) -> dict[str, int]:
    """Bytes in use on each GPU, as ``nvidia-smi`` says, without opening a device; nothing where it does not say."""
    command = ["nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    used_mib = dict(line.split(", ") for line in answer.splitlines() if line.count(", ") == 1)
    return {
        name: int(used_mib[uuid]) * MIB for name, uuid in uuid_of.items() if used_mib.get(uuid, "").strip().isdigit()
    }
