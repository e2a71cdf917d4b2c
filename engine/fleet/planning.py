"""The plan of a group whose devices are open: by memory and measured costs, told to whoever runs the server."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from engine.engine_config import EngineConfig
from engine.fleet.fit import check_devices
from engine.law.fitting import MemoryPlan
from engine.law.placement import PassCosts, Plan, place
from engine.law.schedule import frames_in_block
from engine.machine import usable_cores
from engine.messages import DeviceOpened

logger = logging.getLogger(__name__)

Places = tuple[tuple[int, str], ...]
"""Node rank and name of each device, in chain order."""


def plan_by_memory(
    config: EngineConfig, places: Places, opened: Sequence[DeviceOpened], costs: PassCosts | None
) -> MemoryPlan | None:
    """The plan by memory as well as time, before costs are known and after; None where nothing is computed.

    Raises:
        StartError: there is no room.
    """
    if config.rehearsal is not None:
        return None
    return check_devices(config, places, opened, None if costs is None else _on_shared_cores(config, costs))


def plan_by_time(config: EngineConfig, places: Places, costs: PassCosts) -> Plan:
    """The plan for devices whose memory does not matter."""
    names = tuple(device if node_rank == 0 else f"{device}@node{node_rank}" for node_rank, device in places)
    return place(config.manifest.rollout, names, costs)


def tell_plan(config: EngineConfig, plan: Plan) -> None:
    """Log it, and warn of chains that are too slow for one realtime video: each serves it, and its viewer stalls."""
    manifest, frames = config.manifest, frames_in_block(config.manifest.rollout, 1)
    logger.info("plan: %s", plan.describe(frames))
    for chain in range(len(plan.chains)):
        rate = frames / plan.block_s(chain)
        if rate < manifest.video.fps:
            logger.warning(
                "chain %d makes %.1f frames/s and %s plays at %d: realtime videos stall; "
                "more devices, smaller --sizes or --decoder tiny help",
                *(chain, rate, manifest.name, manifest.video.fps),
            )


def _on_shared_cores(config: EngineConfig, costs: PassCosts) -> PassCosts:
    """What passes cost when all CPU workers of this host compute at once: they share its cores."""
    cores = usable_cores()
    if config.on_gpu or len(config.devices) == 1:
        return costs
    threads = config.num_threads or max(1, cores // len(config.devices))
    slowdown = max(1.0, len(config.devices) * threads / cores)
    return replace(
        costs,
        denoise_s=tuple(cost_s * slowdown for cost_s in costs.denoise_s),
        decode_s=costs.decode_s * slowdown,
        units_s=tuple(cost_s * slowdown for cost_s in costs.units_s),
    )
