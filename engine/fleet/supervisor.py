"""Keeps a worker group alive: starts it, notices its end, starts it again with growing pauses, gives up in the end.

=============  =================================================  ===========================
state          meaning                                            next
=============  =================================================  ===========================
starting       first start: a failure is the operator's to mend,  ready, failed, stopped
               but for another node that went and may come back
ready          serving                                            restarting, stopped
restarting     the group was lost; another one loads              ready, failed, stopped
failed         cannot start, or was lost too often                stopped
stopped        asked to stop                                      -
=============  =================================================  ===========================

Knows no video: what a lost group means to them is decided by whoever is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.engine_config import EngineConfig
from engine.errors import HiarError, StartError, WorkerLost
from engine.fleet import warm_up
from engine.fleet.fit import check_host
from engine.fleet.group import WorkerGroup
from engine.fleet.hosts import Hosts, ThisHost
from engine.fleet.scratch import remove, scratch_folder
from engine.fleet.start import GroupStart, Started, StartReport
from engine.fleet.summary import Learned
from engine.messages import Beat, Cancel, ForFront, FromWorker, Idle, Question, StartProgress, Ticket
from engine.observe import Observer, StartTimes
from engine.request import EngineFacts, EngineState, FleetView

logger = logging.getLogger(__name__)

PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Before the 1st, 2nd .. restart within ``LOSS_SPAN_S``; one loss more and the engine has failed."""
LOSS_SPAN_S = 600.0
CHECK_EVERY_S = 0.25
NODE_PAUSE_S = 1.0
"""Before the first start begins again because a node was lost."""


class Supervisor:
    """One worker group and its replacements."""

    def __init__(
        self,
        config: EngineConfig,
        observer: Observer,
        *,
        on_message: Callable[[int, ForFront], None],
        on_ready: Callable[[EngineFacts], None],
        on_lost: Callable[[str, frozenset[str]], None],
    ) -> None:
        """Start nothing yet.

        Args:
            config: devices and model.
            observer: is told of the workers.
            on_message: called with rank and message.
            on_ready: called for each group that serves.
            on_lost: called for each group that was lost, with a sentence and the videos that may be why.
        """
        self._config, self._observer = config, observer
        self._on_message, self._on_ready, self._on_lost = on_message, on_ready, on_lost
        self._state = EngineState.STARTING
        self._failure: StartError | None = None
        self._facts: EngineFacts | None = None
        self._recovery_times_s: list[float] = []
        """From each loss of a group to the next one's readiness."""
        self._hosts: Hosts = ThisHost(config)
        self._report = StartReport()
        self._folder: Path | None = None
        """Where workers of one host meet; made by ``start``."""
        self._group: WorkerGroup | None = None
        self._learned: Learned | None = None
        self._num_groups = 0
        self._start_until_s = 0.0
        """Until then the first start waits for nodes that were lost during it."""
        self._losses: list[float] = []
        self._settled = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def view(self) -> FleetView:
        """The workers now."""
        group = self._group
        return FleetView(
            state=self._state,
            failure=self._failure,
            start_progress=self._report.sentence,
            facts=self._facts,
            pages_used=group.pages_used if group else 0,
            worker_loads=group.loads if group else (),
            worker_pids=group.pids if group else (),
            recovery_times_s=tuple(self._recovery_times_s),
        )

    async def start(self) -> None:
        """Begin to start a group; returns while it loads.

        Raises:
            StartError: a port is taken, the model does not fit in the memory of this host's CPUs, or no temporary file
                can be written.
        """
        try:
            check_host(self._config)
            self._folder = scratch_folder()
        except StartError as error:
            self._fail(error)
            raise
        if self._config.nodes is not None:
            from engine.fleet.nodes import NodeHub  # noqa: PLC0415 - needs pydantic; one host does not

            hub = NodeHub(self._config)
            try:
                await hub.start()
            except StartError as error:
                self._fail(error)
                raise
            self._hosts = hub
        self._start_until_s = time.monotonic() + self._config.start_timeout_s
        self._begin(pause_s=0.0)

    async def wait_ready(self) -> None:
        """Return once a group serves; raise ``StartError`` if none can start."""
        while self._state in {EngineState.STARTING, EngineState.RESTARTING}:
            self._settled.clear()
            await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """Send to every worker of a chain. What is sent while no group serves is lost with it."""
        if self._group is not None and self._state == EngineState.READY:
            self._group.send_chain(chain, message)

    def ask(self, question: Question) -> None:
        """Have a prompt embedded or a picture encoded; lost while no group serves."""
        if self._group is not None and self._state == EngineState.READY:
            self._group.ask(question)

    async def stop(self) -> None:
        """End all workers. Idempotent."""
        self._enter(EngineState.STOPPED)
        for task in (self._life, self._watch):
            if task is not None:
                task.cancel()
        if self._group is not None:
            await self._group.stop()
        await self._hosts.stop()
        if self._folder is not None:
            remove(self._folder)

    def _begin(self, pause_s: float) -> None:
        self._life = asyncio.create_task(self._bring_up(pause_s))
        self._life.add_done_callback(self._life_ended)

    def _life_ended(self, life: asyncio.Task[None]) -> None:
        """A start that fails in a way nobody foresaw must not look like one that takes long."""
        error = None if life.cancelled() else life.exception()
        if error is not None:
            logger.error("the start failed", exc_info=error)
            self._fail(StartError(f"the workers could not be started: {error!r}"))

    async def _bring_up(self, pause_s: float) -> None:
        lost_at = self._losses[-1] if self._losses else None
        await asyncio.sleep(pause_s)
        if self._group is not None:
            await self._group.stop()  # a dead worker's memory must be free before the next one asks for it
        folder = self._folder
        assert folder is not None, "the supervisor was not started"
        start = GroupStart(self._config, self._hosts, folder, self._num_groups, self._learned, self._note_progress)
        self._num_groups += 1
        self._group = start.group
        try:
            started = await start.bring_up()
        except WorkerLost as error:
            self._start_was_lost(error)
        except StartError as error:
            start.group.kill()
            self._fail(error)
        else:
            self._serve(start.group, started, lost_at)

    def _serve(self, group: WorkerGroup, started: Started, lost_at: float | None) -> None:
        group.serve(self._receive, self._lost)
        self._learned, self._facts = started.learned, started.facts
        self._report.clear()
        self._warn_of_long_restarts(started.times)
        if lost_at is not None:
            self._recovery_times_s.append(time.monotonic() - lost_at)
            self._observer.group_replaced(self._recovery_times_s[-1])
            logger.warning("a new worker group serves %.1f s after the loss", self._recovery_times_s[-1])
        self._enter(EngineState.READY)
        self._watch = asyncio.create_task(self._watch_progress(group))
        self._observer.group_serves(started.facts, started.times)
        self._on_ready(started.facts)

    def _note_progress(self, rank: int, progress: StartProgress) -> None:
        self._report.note(rank, progress)
        self._observer.worker_starts(rank, progress)

    def _warn_of_long_restarts(self, times: StartTimes) -> None:
        """A restart does all that this start did, but for the measuring."""
        again_s, grace_s = times.restart_s, self._config.recovery_grace_s
        logger.info(
            "workers: measuring took %.1f s, loading %.1f s, warming up %.1f s",
            *(times.measure_s, times.load_s, times.warm_up_s),
        )
        if again_s > grace_s:
            logger.warning(
                "replacing lost workers is expected to take %.0f s, longer than videos wait (%g s): they would end; "
                "raise --recovery-grace",
                *(again_s, grace_s),
            )

    async def _watch_progress(self, group: WorkerGroup) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await group.check_progress()

    def _receive(self, rank: int, message: FromWorker) -> None:
        if isinstance(message, Beat | Idle):
            spans = tuple(span for span in message.spans if span.video != warm_up.VIDEO)
            self._observer.worker_worked(rank, spans, message.rests)
            if spans:
                self._on_message(rank, replace(message, spans=spans))
        elif isinstance(message, ForFront):
            self._on_message(rank, message)

    def _start_was_lost(self, error: HiarError) -> None:
        if self._state != EngineState.STARTING:
            self._lost(error, frozenset())
            return
        sentence = f"{error.message} while it started"
        assert self._group is not None
        if self._group.was_lost_elsewhere and time.monotonic() < self._start_until_s:
            logger.warning("%s; the start begins again when all nodes are there", sentence)
            self._report.clear()
            self._begin(NODE_PAUSE_S)
        else:
            self._fail(StartError(sentence))

    def _lost(self, error: HiarError, suspects: frozenset[str]) -> None:
        """A group that served, or that was to replace one, is gone."""
        if self._state in {EngineState.FAILED, EngineState.STOPPED}:
            return
        sentence = error.message
        logger.error("%s", sentence)
        assert self._group is not None and self._group.loss is not None
        self._observer.group_lost(*self._group.loss)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        now = time.monotonic()
        self._losses = [*(at for at in self._losses if now - at < LOSS_SPAN_S), now]
        if len(self._losses) > len(PAUSES_S):
            self._fail(StartError(f"{sentence}; {len(self._losses)} losses in {LOSS_SPAN_S:.0f} s, giving up"))
            return
        self._enter(EngineState.RESTARTING)
        pause_s = PAUSES_S[len(self._losses) - 1]
        logger.warning("starting a new worker group in %.0f s", pause_s)
        self._on_lost(sentence, suspects)
        self._begin(pause_s)

    def _fail(self, failure: StartError) -> None:
        self._failure = failure
        self._enter(EngineState.FAILED)
        self._on_lost(failure.message, frozenset())

    def _enter(self, state: EngineState) -> None:
        self._state = state
        self._settled.set()
