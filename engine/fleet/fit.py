"""Whether the model fits, asked by the front: of this host before a process starts, and of all devices once open.

What does not fit is refused with the numbers of the plan and with flags that make it fit. Loads no torch.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from engine.engine_config import EngineConfig
from engine.errors import StartError
from engine.forecast import host_site
from engine.law.advice import Choices
from engine.law.fitting import Device, MemoryPlan, WorkerMemory
from engine.law.placement import PassCosts
from engine.law.rates import H100, gpu_costs
from engine.law.verdict import Site, judge
from engine.messages import DeviceOpened, MemoryUse
from engine.request import WorkerMemoryFacts

logger = logging.getLogger(__name__)
GB = 1e9


def settled(config: EngineConfig) -> EngineConfig:
    """The settings with what ``auto`` leaves open on this host: bfloat16 on CPUs where float32 has no room."""
    is_open = config.dtype == "auto" and config.manifest.dtype == "bfloat16"
    if not is_open or not _is_this_host_alone(config):
        return config
    site, narrow = host_site(config), replace(config, dtype="bfloat16")
    if judge(config, site).fits or not judge(narrow, site).fits:
        return config
    logger.info("float32 does not fit in the memory that is free: computing in bfloat16")
    return narrow


def check_host(config: EngineConfig) -> None:
    """Refuse what this host's CPUs cannot hold, or cannot start in time, before a process is made.

    Raises:
        StartError: names what is missing, and flags that help.
    """
    if _is_this_host_alone(config):
        _require_fit(config, host_site(config))


def check_devices(
    config: EngineConfig,
    places: Sequence[tuple[int, str]],
    opened: Sequence[DeviceOpened],
    costs: PassCosts | None,
) -> MemoryPlan:
    """The plan for devices that are open: stages and text encoder by memory as well as time.

    Args:
        config: model and settings.
        places: node rank and name of each device, in chain order.
        opened: what their workers said.
        costs: as measured; None before that: whether it fits does not depend on it.

    Raises:
        StartError: names what is missing, and flags that help.
    """
    names = [device if node == 0 else f"{device}@node{node}" for node, device in places]
    devices = tuple(
        Device(name=name, kind=one.kind, free_bytes=one.free_bytes, node=node)
        for name, (node, _), one in zip(names, places, opened, strict=True)
    )
    free = {node: one.host_free_bytes for (node, _), one in zip(places, opened, strict=True)}
    guess = gpu_costs(config, H100)
    site = Site(
        devices=devices,
        host_bytes=tuple(free.get(node) for node in range(1 + max(free))),
        costs=lambda trial: costs or guess,
        measures=costs is None,
        choices=Choices(tiny_decoder=None, fp8_pages=all(one.fp8 for one in opened), host_text=config.on_gpu),
    )
    return _require_fit(config, site)


def memory_facts(planned: WorkerMemory, found: MemoryUse) -> WorkerMemoryFacts:
    """What was planned beside what was found."""
    return WorkerMemoryFacts(
        rank=planned.placement.rank,
        device=planned.device.name,
        planned=tuple((str(item), size) for item, size in planned.held.items() if size),
        measured=tuple((name, size) for name, size in found.items if size),
        planned_bytes=planned.total_bytes,
        measured_bytes=found.total_bytes,
    )


def tell_memory(facts: WorkerMemoryFacts) -> None:
    """Log a worker's memory: what was found, and in brackets what was planned."""
    planned = dict(facts.planned)
    items = ", ".join(f"{name} {size / GB:.2f} ({planned.get(name, 0) / GB:.2f})" for name, size in facts.measured)
    logger.info(
        "worker %d on %s holds %.2f GB before its first block (planned with blocks: %.2f GB): %s",
        facts.rank,
        facts.device,
        facts.measured_bytes / GB,
        facts.planned_bytes / GB,
        items,
    )


def _is_this_host_alone(config: EngineConfig) -> bool:
    """Whether memory and cores of this host decide alone."""
    return not config.on_gpu and config.nodes is None and config.rehearsal is None


def _require_fit(config: EngineConfig, site: Site) -> MemoryPlan:
    verdict = judge(config, site)
    if not verdict.fits:
        raise StartError(f"{config.manifest.name} does not fit: {verdict.sentence}")
    return verdict.memory
