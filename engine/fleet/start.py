"""The start of a worker group, in order, and how far it is.

Devices open; free memory gives a first plan; one worker measures costs; they give the plan; every worker takes its
placement, loads and meets the others; a short video warms every chain up. What then runs is ``engine.fleet.group``.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.engine_config import EngineConfig
from engine.errors import START_FAILURES, HiarError, StartError, StartOutOfMemory
from engine.fleet import warm_up
from engine.fleet.group import WorkerGroup
from engine.fleet.hosts import Hosts
from engine.fleet.planning import Places, plan_by_memory, plan_by_time, tell_plan
from engine.fleet.summary import Learned, summarise
from engine.law.fitting import MemoryPlan
from engine.law.placement import PassCosts, Plan
from engine.messages import (
    Assign,
    BlockDone,
    CostsMeasured,
    DeviceOpened,
    FromWorker,
    MeasureCosts,
    PromptEncoded,
    PromptFailed,
    Rendezvous,
    StartFailed,
    StartPhase,
    StartProgress,
    ToWorker,
    VideoClosed,
    WorkerFacts,
    WorkerReady,
)
from engine.observe import StartTimes
from engine.request import EngineFacts

logger = logging.getLogger(__name__)

MIN_BLOCKS_OF_PATIENCE = 10
"""A worker may be silent for this many predicted blocks, however short the stage timeout: slow is not hung."""
LONGEST_PROMPT = 30
"""A prompt of full length takes at most this many times as long as the first one, which is short: that one merely reads
all weights."""
LOG_EVERY_S = 2.0
"""A line for each worker at most this often; a start that is over before leaves none."""
GB = 1e9
UNITS = {StartPhase.MEASURING: "forwards", StartPhase.CAPTURING: "forwards", StartPhase.WARMING: "blocks"}

Answer = TypeVar("Answer", DeviceOpened, WorkerReady, CostsMeasured, PromptEncoded, VideoClosed)


@dataclass(frozen=True, kw_only=True)
class Started:
    """What is known of a group that has started."""

    facts: EngineFacts
    learned: Learned
    times: StartTimes


class GroupStart:
    """One new group on its way."""

    def __init__(
        self,
        config: EngineConfig,
        hosts: Hosts,
        folder: Path,
        generation: int,
        learned: Learned | None,
        on_progress: Callable[[int, StartProgress], None],
    ) -> None:
        """Start nothing yet.

        Args:
            config: devices and model.
            hosts: where the devices are.
            folder: for the file by which workers of one host meet.
            generation: groups before this one.
            learned: what an earlier group found out; None to measure and try.
            on_progress: called with rank and message.
        """
        self._config, self._hosts, self._folder, self._generation = config, hosts, folder, generation
        self._learned, self._on_progress = learned, on_progress
        self.group = WorkerGroup(self._hear, self._lost)
        self._memory: MemoryPlan | None = None
        """What workers are planned to hold; None for a rehearsal."""
        self._awaited: dict[tuple[int, type], asyncio.Future[Any]] = {}

    async def bring_up(self) -> Started:
        """Start all workers and see one short video through every chain. Then the group may serve.

        Raises:
            StartError: a setting, a device, a file or a port is wrong, or it took too long.
            WorkerLost: a worker died on the way.
        """
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                return await self._bring_up()
        except TimeoutError:
            raise StartError(f"the workers were not ready after {self._config.start_timeout_s:g} s") from None

    async def _bring_up(self) -> Started:
        places = await self._hosts.wait_nodes()
        began_s = time.monotonic()
        opened = await self._open_devices(places)
        costs, measuring_s = await self._measure(places, opened)
        measured_s = time.monotonic()
        plan = self._plan(places, opened, costs)
        workers = await self._load(plan)
        facts = summarise(self._config, plan, workers, self._memory)
        loaded_s = time.monotonic()
        self.group.watch(plan, tuple(worker.num_pages for worker in workers), self._patience_s(plan))
        await self._warm_up(plan)
        self._check_alive()
        warm_s = time.monotonic()
        self._tell_workers(plan)
        return Started(
            facts=facts,
            learned=Learned(costs=costs, attentions=tuple(worker.attentions for worker in workers)),
            times=StartTimes(
                measure_s=measured_s - began_s,
                load_s=loaded_s - measured_s,
                warm_up_s=warm_s - loaded_s,
                restart_s=warm_s - began_s - measuring_s,
            ),
        )

    # --- the steps ---

    async def _open_devices(self, places: Places) -> list[DeviceOpened]:
        self.group.open(self._hosts, places)
        return await asyncio.gather(*(self._expect(rank, DeviceOpened) for rank in range(len(places))))

    async def _measure(self, places: Places, opened: Sequence[DeviceOpened]) -> tuple[PassCosts, float]:
        """The costs, and how long it took to find them but for loading, which the worker need not do again."""
        if self._learned is not None:
            return self._learned.costs, 0.0
        self._memory = plan_by_memory(self._config, places, opened, None)
        asked_s = time.monotonic()
        found = await self._ask(0, MeasureCosts(), CostsMeasured)
        return found.costs, time.monotonic() - asked_s - found.load_s

    def _plan(self, places: Places, opened: Sequence[DeviceOpened], costs: PassCosts) -> Plan:
        self._memory = plan_by_memory(self._config, places, opened, costs)
        plan = self._memory.plan if self._memory is not None else plan_by_time(self._config, places, costs)
        tell_plan(self._config, plan)
        return plan

    async def _load(self, plan: Plan) -> list[WorkerFacts]:
        ranks = range(len(plan.placements))
        ready = await asyncio.gather(*(self._ask(rank, self._assignment(rank, plan), WorkerReady) for rank in ranks))
        return [worker.facts for worker in ready]

    def _assignment(self, rank: int, plan: Plan) -> Assign:
        attentions = self._learned.attentions[rank] if self._learned is not None else ()
        return Assign(rank=rank, plan=plan, rendezvous=self._rendezvous(), attentions=attentions)

    def _rendezvous(self) -> Rendezvous:
        nodes = self._config.nodes
        if nodes is None:
            store = f"file:{self._folder / f'group{self._generation}'}"
        else:
            store = f"tcp:{nodes.master_addr}:{nodes.master_port}"
        return Rendezvous(store=store, generation=self._generation)

    def _patience_s(self, plan: Plan) -> float:
        slowest_s = max(plan.block_s(chain) for chain in range(len(plan.chains)))
        return max(self._config.stage_timeout_s, MIN_BLOCKS_OF_PATIENCE * slowest_s)

    async def _warm_up(self, plan: Plan) -> None:
        """Two blocks through every chain, so that the first caller does not pay for first calls."""
        manifest = self._config.manifest
        if manifest.decoder is None or (manifest.text is None and self._config.rehearsal is None):
            return
        answer, asked_s = self._expect(plan.text_rank, PromptEncoded), time.monotonic()
        self.group.ask(warm_up.QUESTION)
        messages = warm_up.messages(manifest, (await answer).embedding)
        self.group.allow_text(LONGEST_PROMPT * (time.monotonic() - asked_s))
        closed = [self._expect(placement.rank, VideoClosed) for placement in plan.placements]
        for chain in range(len(plan.chains)):
            self._on_progress(plan.chains[chain][-1].rank, warm_up.progress(0))
            for message in messages:
                self.group.send_chain(chain, message)
        await asyncio.gather(*closed)
        assert self.group.pages_used == 0, "warm-up kept pages"

    def _tell_workers(self, plan: Plan) -> None:
        for placement, pid in zip(plan.placements, self.group.pids, strict=True):
            process = f"process {pid}" if pid is not None else "there"
            logger.info(
                "worker %d on %s is %s: %s", placement.rank, placement.device, process, " ".join(placement.names)
            )

    # --- questions and answers ---

    async def _ask(self, rank: int, question: ToWorker, kind: type[Answer]) -> Answer:
        future = self._expect(rank, kind)
        self.group.send(rank, question)
        return await future

    def _expect(self, rank: int, kind: type[Answer]) -> "asyncio.Future[Answer]":
        """The next message of a kind from a worker. Raises what the group failed with."""
        self._check_alive()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._awaited[rank, kind] = future
        return future

    def _check_alive(self) -> None:
        """A worker may die with its answer: then nobody waits for it. Raises what the group failed with."""
        if self.group.failure is not None:
            raise self.group.failure

    def _hear(self, rank: int, message: FromWorker) -> None:
        match message:
            case StartFailed():
                self.group.lose(self._error(message), rank)
            case PromptFailed():
                self.group.lose(StartError(message.message), rank)
            case StartProgress():
                self._on_progress(rank, message)
            case BlockDone():
                self._on_progress(rank, warm_up.progress(message.block + 1))
            case _:
                awaited = self._awaited.pop((rank, type(message)), None)
                if awaited is not None and not awaited.done():  # done: the start took too long
                    awaited.set_result(message)

    def _error(self, failed: StartFailed) -> StartError:
        """What a worker failed with; memory that ran out is told with what was planned."""
        kind = START_FAILURES.get(failed.code, StartError)
        if kind is StartOutOfMemory and self._memory is not None:
            return kind(f"{failed.message} ({self._memory.sizes})")
        return kind(failed.message)

    def _lost(self, error: HiarError, suspects: frozenset[str]) -> None:
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(error)


class StartReport:
    """What the workers of a group said of their start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives monotonic seconds."""
        self._clock = clock
        self._latest: dict[int, StartProgress] = {}
        self._logged_at: dict[int, float] = {}

    def note(self, rank: int, progress: StartProgress) -> None:
        """Take what a worker said."""
        now = self._clock()
        self._latest[rank] = progress
        if now - self._logged_at.setdefault(rank, now) >= LOG_EVERY_S:
            self._logged_at[rank] = now
            logger.info("worker %d: %s", rank, told(progress))

    def clear(self) -> None:
        """The group serves, or is gone."""
        self._latest.clear()
        self._logged_at.clear()

    @property
    def sentence(self) -> str | None:
        """How far all workers are; None if nothing is known."""
        if not self._latest:
            return None
        return "; ".join(f"worker {rank}: {told(progress)}" for rank, progress in sorted(self._latest.items()))


def told(progress: StartProgress) -> str:
    """For people: 'reading hiar.pt 5.7 of 11.4 GB', 'capturing 12 of 24 forwards'."""
    if progress.phase is StartPhase.READING:
        return f"reading {progress.what} {progress.done / GB:.1f} of {progress.total / GB:.1f} GB"
    return f"{progress.phase} {progress.done} of {progress.total} {UNITS[progress.phase]}"
