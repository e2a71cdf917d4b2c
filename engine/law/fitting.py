"""Does it fit: stages and the text encoder on devices, by memory as well as time, and what is missing if not.

Pure: what devices and hosts have free comes in as numbers. CPU workers of one host share its memory; a GPU is its
worker's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from engine.engine_config import EngineConfig
from engine.law.memory import Held, Item, Share, held_by, held_while_measuring, text_encoder_bytes
from engine.law.placement import DecoderPart, PassCosts, Placement, Plan, place
from engine.law.rates import frames_per_block

GB = 1e9
NOTABLE_BYTES = 50_000_000
"""Smaller items are left out of a sentence."""
COLUMNS = (
    *("device", "stages", "context", "weights", "text encoder", "text buffers", "pages", "graphs", "decoder"),
    *("decoder state", "activations", "slack", "total", "of"),
)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device and what is free on it before a worker starts."""

    name: str
    """As in a plan: ``cuda:0``, ``cpu``, ``cuda:0@node1``."""
    kind: str
    """What people call it."""
    free_bytes: int
    """Of a CPU: of its host."""
    node: int = 0

    @property
    def is_cpu(self) -> bool:
        """Whether it shares its host's memory."""
        return self.name.startswith("cpu")


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """What one worker is planned to hold."""

    placement: Placement
    device: Device
    held: Held
    """On its device."""
    host_bytes: int = 0
    """Beside that in the host's memory: a text encoder."""

    @property
    def total_bytes(self) -> int:
        """On its device."""
        return sum(self.held.values())


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A plan of stages and what each worker holds by it."""

    plan: Plan
    workers: tuple[WorkerMemory, ...]
    frames_per_s: float
    """Of all chains together, at the default size, by the costs that were given."""
    shortfalls: tuple[str, ...]
    """What does not fit, a sentence each; empty if all does."""

    @property
    def fits(self) -> bool:
        """Whether everything has room."""
        return not self.shortfalls

    @property
    def sizes(self) -> str:
        """What each worker is planned to hold, in a sentence."""
        workers = []
        for worker in self.workers:
            notable = [f"{item} {size / GB:.1f}" for item, size in worker.held.items() if size >= NOTABLE_BYTES]
            notable += [f"text encoder on the host {worker.host_bytes / GB:.1f}"] if worker.host_bytes else []
            workers.append(f"{worker.device.name} {worker.total_bytes / GB:.1f} GB: {', '.join(notable)}")
        return "planned for " + "; ".join(workers)

    @property
    def table(self) -> tuple[tuple[str, ...], ...]:
        """Columns, then a row a worker, in GB."""
        return (COLUMNS, *(_row(worker) for worker in self.workers))


def plan_memory(
    config: EngineConfig,
    devices: Sequence[Device],
    costs: PassCosts,
    host_bytes: Sequence[int | None] = (None,),
    *,
    measures: bool = False,
) -> MemoryPlan:
    """Place all stages and the text encoder, and compare what that takes with what there is.

    Args:
        config: model, roll-out and settings.
        devices: in chain order, one a worker.
        costs: of passes, measured or estimated.
        host_bytes: memory that is free on each node; None where it is unknown and taken to be enough.
        measures: whether the first worker will measure before it serves.
    """

    @cache
    def needed_bytes(share: Share) -> int:
        return sum(held_by(config, share).values())

    def fits(index: int, stages: tuple[int, ...], part: DecoderPart | None, decodes: bool) -> bool:
        if devices[index].is_cpu:
            return True  # the host's memory is shared, however it is cut
        return needed_bytes(Share(stages=stages, decodes=decodes, part=part)) <= devices[index].free_bytes

    plan = place(config.manifest.rollout, tuple(device.name for device in devices), costs, fits)
    workers = [
        WorkerMemory(
            placement=replace(placement, embeds_text=False),
            device=device,
            held=held_by(config, Share.of(placement)),
        )
        for placement, device in zip(plan.placements, devices, strict=True)
    ]
    workers = _with_text(config, workers, host_bytes)
    shortfalls = [*_device_shortfalls(workers), *_host_shortfalls(workers, host_bytes)]
    if measures:
        shortfalls += _measuring_shortfalls(config, devices[0])
    plan = Plan(placements=tuple(worker.placement for worker in workers))
    rate = sum(frames_per_block(config) / plan.block_s(chain) for chain in range(len(plan.chains)))
    return MemoryPlan(plan=plan, workers=tuple(workers), frames_per_s=rate, shortfalls=tuple(shortfalls))


def room_for_videos(config: EngineConfig, memory: MemoryPlan) -> int:
    """How many videos a chain could hold at once with everything else as planned; 0 if not even one."""
    most = 0
    for count in range(1, 1025):
        trial = replace(config, max_videos=count)
        for worker in memory.workers:
            held = held_by(trial, Share.of(worker.placement))
            if sum(held.values()) + worker.held[Item.TEXT_ENCODER] > worker.device.free_bytes:
                return most
        most = count
    return most


def _with_text(
    config: EngineConfig, workers: list[WorkerMemory], host_bytes: Sequence[int | None]
) -> list[WorkerMemory]:
    """Give the text encoder to the worker with least to do among those that are asked for and have room for it."""
    num_bytes = text_encoder_bytes(config)
    by_load = sorted(workers, key=lambda worker: worker.placement.load_s)
    asked = config.text_device
    on_host = asked == "cpu" and not by_load[0].device.is_cpu
    chosen = by_load[0]
    if asked not in {"auto", "cpu"}:
        chosen = next(worker for worker in by_load if worker.device.name == asked)
    elif asked == "auto" and not chosen.device.is_cpu:
        roomy = [one for one in by_load if one.total_bytes + num_bytes <= one.device.free_bytes]
        free = host_bytes[chosen.device.node]
        on_host = not roomy and (free is None or num_bytes <= free)
        chosen = roomy[0] if roomy else chosen
    placement = replace(chosen.placement, embeds_text=True, text_on_host=on_host)
    held = dict(chosen.held)
    held[Item.TEXT_ENCODER] = 0 if on_host else num_bytes
    taken = replace(chosen, placement=placement, held=held, host_bytes=num_bytes if on_host else 0)
    return [taken if worker is chosen else worker for worker in workers]


def _device_shortfalls(workers: list[WorkerMemory]) -> list[str]:
    return [
        f"{worker.device.name} has {worker.device.free_bytes / GB:.1f} GB free and its worker needs "
        f"{worker.total_bytes / GB:.1f} GB"
        for worker in workers
        if not worker.device.is_cpu and worker.total_bytes > worker.device.free_bytes
    ]


def _host_shortfalls(workers: list[WorkerMemory], host_bytes: Sequence[int | None]) -> list[str]:
    found = []
    for node, free in enumerate(host_bytes):
        here = [worker for worker in workers if worker.device.node == node]
        needed = sum(worker.host_bytes + worker.total_bytes * worker.device.is_cpu for worker in here)
        if free is not None and needed > free:
            who = "its worker needs" if len(here) == 1 else f"its {len(here)} workers need"
            found.append(f"the host has {free / GB:.1f} GB of memory free and {who} {needed / GB:.1f} GB of it")
    return found


def _measuring_shortfalls(config: EngineConfig, device: Device) -> list[str]:
    needed = held_while_measuring(config)
    if device.is_cpu or needed <= device.free_bytes:
        return []
    return [f"{device.name} has {device.free_bytes / GB:.1f} GB free and measuring needs {needed / GB:.1f} GB"]


def _row(worker: WorkerMemory) -> tuple[str, ...]:
    sizes = {str(item): f"{worker.held[item] / GB:.2f}" for item in Item}
    if worker.host_bytes:
        sizes[Item.TEXT_ENCODER] = f"({worker.host_bytes / GB:.2f} on the host)"
    ends = {
        "device": worker.device.name,
        "stages": " ".join(worker.placement.names),
        "total": f"{worker.total_bytes / GB:.2f}",
        "of": f"{worker.device.free_bytes / GB:.2f}",
    }
    return tuple((sizes | ends)[column] for column in COLUMNS)
