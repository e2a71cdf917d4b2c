"""One worker group, from its first process to its last: the start in order, routing by rank, and signs of trouble.

A group is all workers of all chains. It lives and dies as a whole: a worker that is gone takes pages and hand-over
with it, and a communicator is never used again after an error (``operations`` spec section 1.4). Knows no video and
no restart policy.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.engine_config import EngineConfig
from engine.errors import START_FAILURES, HiarError, StartError, StartOutOfMemory, WorkerLost
from engine.fleet import warm_up
from engine.fleet.hosts import Hosts
from engine.fleet.local import WorkerHandle
from engine.fleet.planning import plan_by_memory, plan_by_time, tell_plan
from engine.fleet.summary import Learned, summarise
from engine.fleet.vitals import Vitals
from engine.fleet.watchdog import Watchdog
from engine.law.fitting import MemoryPlan
from engine.law.placement import Plan
from engine.messages import (
    Assign,
    Beat,
    BlockDone,
    Cancel,
    CostsMeasured,
    DeviceOpened,
    EncodePrompt,
    FromWorker,
    MeasureCosts,
    PromptEncoded,
    Rendezvous,
    StartFailed,
    StartProgress,
    Ticket,
    ToWorker,
    VideoClosed,
    WorkBegins,
    WorkerReady,
)
from engine.observe import LossReason, StartTimes
from engine.request import EngineFacts, WorkerLoad

logger = logging.getLogger(__name__)


MIN_BLOCKS_OF_PATIENCE = 10
"""A worker may be silent for this many predicted blocks, however short the stage timeout: slow is not hung."""
LONGEST_PROMPT = 30
"""A prompt of full length takes at most this many times as long as the first one, which is short: that one merely reads
all weights."""
ASLEEP_S = 2.0
"""Checks come several times a second; one that comes so late tells of the front and not of the workers."""
STACK_DUMP_S = 0.3
"""What a hung worker gets to print where it stands."""

Answer = TypeVar("Answer", DeviceOpened, WorkerReady, CostsMeasured, PromptEncoded, VideoClosed)


class WorkerGroup:
    """All workers, for one life of the group."""

    def __init__(
        self,
        config: EngineConfig,
        hosts: Hosts,
        folder: Path,
        generation: int,
        learned: Learned | None,
        *,
        on_message: Callable[[int, FromWorker], None],
        on_progress: Callable[[int, StartProgress], None],
        on_lost: Callable[[str, frozenset[str]], None],
    ) -> None:
        """Make a group that does not run yet.

        Args:
            config: devices and model.
            hosts: where the devices are.
            folder: for the file by which workers of one host meet.
            generation: groups before this one.
            learned: what an earlier group found out; None to measure and try.
            on_message: called with rank and message once the group serves.
            on_progress: called with rank and message while the group starts.
            on_lost: called once when a serving group is lost, with a sentence and with the videos that the worker at
                fault was busy with; the group is dead then.
        """
        self._config, self._hosts, self._folder, self._generation = config, hosts, folder, generation
        self._on_message, self._on_progress, self._on_lost = on_message, on_progress, on_lost
        self.learned = learned
        self._costs = learned.costs if learned is not None else None
        self.plan: Plan | None = None
        self._memory: MemoryPlan | None = None
        """What workers are planned to hold; None for a rehearsal."""
        self.facts: EngineFacts | None = None
        self._workers: list[WorkerHandle] = []
        self._awaited: dict[tuple[int, type], asyncio.Future[Any]] = {}
        self.start_times: StartTimes | None = None
        self.loss: tuple[int, LossReason] | None = None
        """The worker whose fault ended the group, and how."""
        self._watchdog: Watchdog | None = None
        self._checked_at: float | None = None
        self._vitals = Vitals()
        self._busy_with: dict[int, frozenset[str]] = {}
        """By rank: the videos of what a worker does now."""
        self._failure: HiarError | None = None
        self._serving = False

    @property
    def pids(self) -> tuple[int | None, ...]:
        """Process ids by rank; None for workers of other hosts."""
        return tuple(worker.pid for worker in self._workers)

    @property
    def pages_used(self) -> int:
        """Pages taken in all pools, as the workers last told."""
        return self._vitals.pages_used

    @property
    def loads(self) -> tuple[WorkerLoad, ...]:
        """How busy each worker is, by rank; empty unless the group serves."""
        if not self._serving or self._failure is not None:
            return ()
        assert self._watchdog is not None
        return self._vitals.loads(self._watchdog)

    async def bring_up(self) -> None:
        """Start all workers and see one short video through every chain.

        Raises:
            StartError: a setting, a device, a file or a port is wrong, or it took too long.
            WorkerLost: a worker died on the way.
        """
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                await self._bring_up()
        except TimeoutError:
            raise StartError(f"the workers were not ready after {self._config.start_timeout_s:g} s") from None

    async def _bring_up(self) -> None:
        places = await self._hosts.wait_nodes()
        began_s = time.monotonic()
        for rank, (node_rank, device) in enumerate(places):
            self._workers.append(self._open(rank, node_rank, device))
        opened = await asyncio.gather(*(self._expect(rank, DeviceOpened) for rank in range(len(places))))
        measuring_s = 0.0
        if self._costs is None:
            self._memory = plan_by_memory(self._config, places, opened, None)
            asked_s = time.monotonic()
            found = await self._ask(0, MeasureCosts(), CostsMeasured)
            self._costs, measuring_s = found.costs, time.monotonic() - asked_s - found.load_s
        measured_s = time.monotonic()
        self._memory = plan_by_memory(self._config, places, opened, self._costs)
        self.plan = self._memory.plan if self._memory is not None else plan_by_time(self._config, places, self._costs)
        tell_plan(self._config, self.plan)
        assigned = [self._ask(rank, self._assignment(rank, self.plan), WorkerReady) for rank in range(len(places))]
        facts = [ready.facts for ready in await asyncio.gather(*assigned)]
        self.learned = Learned(costs=self._costs, attentions=tuple(fact.attentions for fact in facts))
        self._vitals.set_pools(tuple(fact.num_pages for fact in facts))
        self.facts = summarise(self._config, self.plan, facts, self._memory)
        loaded_s = time.monotonic()
        slowest_s = max(self.plan.block_s(chain) for chain in range(len(self.plan.chains)))
        patience_s = max(self._config.stage_timeout_s, MIN_BLOCKS_OF_PATIENCE * slowest_s)
        self._watchdog = Watchdog(self.plan, patience_s)
        await self._warm_up(self.plan)
        warm_s = time.monotonic()
        self.start_times = StartTimes(
            measure_s=measured_s - began_s,
            load_s=loaded_s - measured_s,
            warm_up_s=warm_s - loaded_s,
            restart_s=warm_s - began_s - measuring_s,
        )
        for placement, pid in zip(self.plan.placements, self.pids, strict=True):
            process = f"process {pid}" if pid is not None else "there"
            logger.info(
                "worker %d on %s is %s: %s", placement.rank, placement.device, process, " ".join(placement.names)
            )
        self._serving = True

    # --- while it serves ---

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """Send a ticket, or a cancellation, to every worker of a chain."""
        assert self.plan is not None and self._watchdog is not None, "the group does not run"
        if not isinstance(message, Cancel):
            self._watchdog.sent(chain, time.monotonic())
        for placement in self.plan.chains[chain]:
            self._workers[placement.rank].send(message)

    def ask(self, question: EncodePrompt) -> None:
        """Have a prompt embedded."""
        assert self._watchdog is not None, "the group does not run"
        self._watchdog.asked(self._text_rank, time.monotonic())
        self._workers[self._text_rank].send(question)

    async def check_progress(self) -> None:
        """End the group if a worker hangs. A gap since the last check is the front's own, and no worker's silence."""
        now = time.monotonic()
        gap_s, self._checked_at = now - (self._checked_at or now), now
        if self._watchdog is not None and gap_s > ASLEEP_S:
            logger.warning("the server itself stood still for %.1f s", gap_s)
            self._watchdog.slept(gap_s)
        hung = self._watchdog.hung(now) if self._watchdog is not None else None
        if hung is None or self._failure is not None:
            return
        assert self.plan is not None
        placement = self.plan.placements[hung]
        sentence = f"worker {hung} on {placement.device} ({' '.join(placement.names)}) made no progress in time"
        logger.error("%s; its stack follows if it can still run", sentence)
        self._workers[hung].abort()
        await asyncio.sleep(STACK_DUMP_S)
        self._lose(WorkerLost(sentence), hung, LossReason.HUNG)

    def kill(self) -> None:
        """End all processes now."""
        for worker in self._workers:
            worker.kill()

    async def stop(self) -> None:
        """Ask all workers to leave, and end those that do not."""
        self._failure = self._failure or WorkerLost("the group was stopped")
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    # --- messages ---

    def _open(self, rank: int, node_rank: int, device: str) -> WorkerHandle:
        return self._hosts.open_worker(
            node_rank,
            device,
            lambda message: self._receive(rank, message),
            lambda sentence: self._lose(WorkerLost(sentence), rank),
        )

    def _receive(self, rank: int, message: FromWorker) -> None:
        if self._failure is not None:
            return
        now = time.monotonic()
        self._vitals.heard(rank)
        match message:
            case StartFailed():
                self._lose(self._start_error(message), rank)
                return
            case StartProgress():
                self._on_progress(rank, message)
                return
            case WorkBegins():
                self._busy_with[rank] = frozenset(message.videos)
                return
            case Beat():
                self._busy_with.pop(rank, None)
                self._vitals.holds(rank, message.pages_used)
                if self._watchdog is not None:
                    self._watchdog.beat(rank, message.tickets_passed, now)
            case VideoClosed():
                self._vitals.holds(rank, message.pages_used)
            case PromptEncoded() if self._watchdog is not None:
                self._watchdog.answered(rank, now)
        self._hand_on(rank, message)

    def _start_error(self, failed: StartFailed) -> StartError:
        """What a worker failed with; memory that ran out is told with what was planned."""
        kind = START_FAILURES.get(failed.code, StartError)
        if kind is StartOutOfMemory and self._memory is not None:
            return kind(f"{failed.message} ({self._memory.sizes})")
        return kind(failed.message)

    def _hand_on(self, rank: int, message: FromWorker) -> None:
        awaited = self._awaited.pop((rank, type(message)), None)
        if awaited is not None:
            awaited.set_result(message)
        elif self._serving:
            self._on_message(rank, message)
        elif isinstance(message, BlockDone):
            self._on_progress(rank, warm_up.progress(message.block + 1))

    def _expect(self, rank: int, kind: type[Answer]) -> "asyncio.Future[Answer]":
        """The next message of a kind from a worker. Raises what the group failed with."""
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._awaited[rank, kind] = future
        return future

    async def _ask(self, rank: int, question: ToWorker, kind: type[Answer]) -> Answer:
        future = self._expect(rank, kind)
        self._workers[rank].send(question)
        return await future

    def _lose(self, error: HiarError, rank: int, reason: LossReason = LossReason.DIED) -> None:
        """The first trouble, at worker ``rank``, ends the group; what follows from it is not told."""
        if self._failure is not None:
            return
        self._failure, self.loss = error, (rank, reason)
        self.kill()
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(error)
        if self._serving:
            self._on_lost(error.message, self._busy_with.get(rank, frozenset()))

    # --- parts of the start ---

    def _assignment(self, rank: int, plan: Plan) -> Assign:
        attentions = self.learned.attentions[rank] if self.learned is not None else ()
        return Assign(rank=rank, plan=plan, rendezvous=self._rendezvous(), attentions=attentions)

    def _rendezvous(self) -> Rendezvous:
        nodes = self._config.nodes
        if nodes is None:
            store = f"file:{self._folder / f'group{self._generation}'}"
        else:
            store = f"tcp:{nodes.master_addr}:{nodes.master_port}"
        return Rendezvous(store=store, generation=self._generation)

    async def _warm_up(self, plan: Plan) -> None:
        """Two blocks through every chain, so that the first caller does not pay for first calls."""
        manifest = self._config.manifest
        if manifest.decoder is None or (manifest.text is None and self._config.rehearsal is None):
            return
        assert self._watchdog is not None
        answer, asked_s = self._expect(self._text_rank, PromptEncoded), time.monotonic()
        self.ask(warm_up.QUESTION)
        messages = warm_up.messages(manifest, (await answer).embedding)
        self._watchdog.allow_text(LONGEST_PROMPT * (time.monotonic() - asked_s))
        closed = [self._expect(placement.rank, VideoClosed) for placement in plan.placements]
        for chain in range(len(plan.chains)):
            self._on_progress(plan.chains[chain][-1].rank, warm_up.progress(0))
            for message in messages:
                self.send_chain(chain, message)
        await asyncio.gather(*closed)
        assert self.pages_used == 0, "warm-up kept pages"

    @property
    def _text_rank(self) -> int:
        assert self.plan is not None
        return next(placement.rank for placement in self.plan.placements if placement.embeds_text)
