"""Whether a model can be served somewhere: the plan, what stands against it, and the flags that would help. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.engine_config import EngineConfig
from engine.law.advice import Choices, advise
from engine.law.fitting import Device, MemoryPlan, plan_memory
from engine.law.placement import PassCosts
from engine.law.rates import cpu_start_s


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a model is to be served."""

    devices: tuple[Device, ...]
    """In chain order."""
    host_bytes: tuple[int | None, ...]
    """Free memory of each node; None where it is unknown and taken to be enough."""
    costs: Callable[[EngineConfig], PassCosts]
    """Of passes, measured or estimated."""
    num_cores: int | None = None
    """Of a site without GPUs, whose start is held against the start timeout; None for GPUs."""
    measures: bool = False
    """Whether the first worker will measure before it serves."""
    choices: Choices
    """What may be advised there."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the question."""

    memory: MemoryPlan
    reasons: tuple[str, ...]
    """What stands against it; empty if it fits."""
    flags: str | None
    """What to put behind the command as it is; None if nothing helps, or nothing need."""

    @property
    def fits(self) -> bool:
        """Whether nothing stands against it."""
        return not self.reasons

    @property
    def sentence(self) -> str:
        """Why not, what would help and what was planned, for a log."""
        help_ = f"these flags make it fit: {self.flags}" if self.flags else "no flags make it fit"
        return f"{'; '.join(self.reasons)}; {help_} ({self.memory.sizes})"


def judge(config: EngineConfig, site: Site) -> Verdict:
    """Plan, and look for flags if the plan does not fit."""
    memory = _plan(config, site)
    reasons = (*memory.shortfalls, *_too_slow(config, site))

    def fits(trial: EngineConfig) -> bool:
        return _plan(trial, site).fits and not _too_slow(trial, site)

    flags = advise(config, site.choices, fits) if reasons else None
    return Verdict(memory=memory, reasons=reasons, flags=flags)


def _plan(config: EngineConfig, site: Site) -> MemoryPlan:
    return plan_memory(config, site.devices, site.costs(config), site.host_bytes, measures=site.measures)


def _too_slow(config: EngineConfig, site: Site) -> tuple[str, ...]:
    """On a CPU a large model's start takes long, because it makes blocks: how long, where that is too long."""
    if site.num_cores is None:
        return ()
    start_s, limit_s = cpu_start_s(config, site.num_cores), config.start_timeout_s
    if start_s <= limit_s:
        return ()
    width_px, height_px = config.manifest.video.sizes[0]
    return (
        f"the start makes blocks of {width_px}x{height_px} and would take about {start_s / 60:.0f} minutes on "
        f"{site.num_cores} cores (an estimate), with a start timeout of {limit_s:g} s",
    )
