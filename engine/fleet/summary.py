"""What a group that has started is, and what it found out: facts of its workers, put together for whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.engine_config import EngineConfig
from engine.fleet.fit import memory_facts, tell_memory
from engine.law.fitting import MemoryPlan
from engine.law.placement import PassCosts, Plan
from engine.law.schedule import frames_in_block
from engine.messages import WorkerFacts
from engine.request import Dtypes, EngineFacts


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a group found out that the next one on the same devices need not."""

    costs: PassCosts
    attentions: tuple[tuple[str, ...], ...]
    """By rank: ways to attend that passed the trial."""


def summarise(
    config: EngineConfig, plan: Plan, facts: Sequence[WorkerFacts], planned: MemoryPlan | None
) -> EngineFacts:
    """The group's facts, from those of its workers by rank; logs what each holds in memory beside what was planned."""
    manifest = config.manifest
    workers = planned.workers if planned is not None else ()
    memory = tuple(memory_facts(worker, facts[worker.placement.rank].memory) for worker in workers)
    for one in memory:
        tell_memory(one)
    frames = frames_in_block(manifest.rollout, 1)
    return EngineFacts(
        model=manifest.name,
        device_names=tuple(fact.device_name for fact in facts),
        plan=plan,
        frames_per_s=sum(frames / plan.block_s(chain) for chain in range(len(plan.chains))),
        num_pages=sum(fact.num_pages for fact in facts),
        page_bytes=facts[0].page_bytes,
        attention=facts[0].attention,
        dtypes=_dtypes(config, facts[0].dtype),
        decoder=manifest.decoder.kind if manifest.decoder else "none",
        encoder=next((fact.encoder for fact in facts if fact.encoder), "none"),
        takes_pictures=any(fact.takes_pictures for fact in facts),
        codecs=next((fact.codecs for fact in facts if fact.codecs), ""),
        memory=memory,
    )


def _dtypes(config: EngineConfig, activations: str) -> Dtypes:
    precision = config.precision
    return Dtypes(
        activations=activations,
        pages="fp8" if precision.fp8_pages else activations,
        linears="fp8" if precision.fp8_linears else activations,
        attention="int8" if precision.int8_attention else activations,
    )
