"""A worker group that runs: what reaches whom, signs of trouble, and the end. ``engine.fleet.start`` brings one up.

A group is all workers of all chains. It lives and dies as a whole: a worker that is gone takes pages and hand-over
with it, and a communicator is never used again after an error (``operations`` spec section 1.4). Knows no video and
no restart policy.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from engine.errors import HiarError, WorkerLost
from engine.fleet.hosts import Hosts
from engine.fleet.local import WorkerHandle
from engine.fleet.planning import Places
from engine.fleet.vitals import Vitals
from engine.fleet.watchdog import Watchdog
from engine.law.placement import Plan
from engine.messages import (
    Beat,
    Cancel,
    EncodePrompt,
    FromWorker,
    PromptEncoded,
    PromptFailed,
    Question,
    Ticket,
    ToWorker,
    VideoClosed,
    WorkBegins,
)
from engine.observe import LossReason
from engine.request import WorkerLoad

logger = logging.getLogger(__name__)

ASLEEP_S = 2.0
"""Checks come several times a second; one that comes so late tells of the front and not of the workers."""
STACK_DUMP_S = 0.3
"""What a hung worker gets to print where it stands."""

OnMessage = Callable[[int, FromWorker], None]
"""Called with rank and message."""
OnLost = Callable[[HiarError, frozenset[str]], None]
"""Called once, when the group is dead: with why, and with the videos that the worker at fault was busy with."""


class WorkerGroup:
    """All workers, for one life of the group."""

    def __init__(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """Make a group without workers. What it calls is for the start; ``serve`` replaces it."""
        self._on_message, self._on_lost = on_message, on_lost
        self.plan: Plan | None = None
        self.failure: HiarError | None = None
        """Why it is dead."""
        self.loss: tuple[int, LossReason] | None = None
        """The worker whose fault ended the group, and how."""
        self._workers: list[WorkerHandle] = []
        self._places: Places = ()
        self._watchdog: Watchdog | None = None
        self._checked_at: float | None = None
        self._vitals = Vitals()
        self._busy_with: dict[int, frozenset[str]] = {}
        """By rank: the videos of what a worker does now."""
        self._serving = False

    @property
    def pids(self) -> tuple[int | None, ...]:
        """Process ids by rank; None for workers of other hosts."""
        return tuple(worker.pid for worker in self._workers)

    @property
    def was_lost_elsewhere(self) -> bool:
        """Whether the worker at fault was on another node, with which it may have gone."""
        return self.loss is not None and self._places[self.loss[0]][0] != 0

    @property
    def pages_used(self) -> int:
        """Pages taken in all pools, as the workers last told."""
        return self._vitals.pages_used

    @property
    def loads(self) -> tuple[WorkerLoad, ...]:
        """How busy each worker is, by rank; empty unless the group serves."""
        if not self._serving or self.failure is not None:
            return ()
        assert self._watchdog is not None
        return self._vitals.loads(self._watchdog)

    # --- while it starts ---

    def open(self, hosts: Hosts, places: Places) -> None:
        """Start a worker at each place."""
        self._places = places
        for rank, (node_rank, device) in enumerate(places):
            self._workers.append(self._open(hosts, rank, node_rank, device))

    def send(self, rank: int, message: ToWorker) -> None:
        """Send to one worker."""
        self._workers[rank].send(message)

    def watch(self, plan: Plan, num_pages: tuple[int, ...], patience_s: float) -> None:
        """Every worker has its placement and its pool, by rank; one that owes work may be silent for so long."""
        self.plan = plan
        self._vitals.set_pools(num_pages)
        self._watchdog = Watchdog(plan, patience_s)

    def allow_text(self, seconds: float) -> None:
        """Let the worker that embeds prompts be silent for so long, if that is more than others may."""
        assert self._watchdog is not None, "the group does not run"
        self._watchdog.allow_text(seconds)

    def serve(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """The start is over; these are called from now on."""
        self._on_message, self._on_lost = on_message, on_lost
        self._serving = True

    # --- while it serves ---

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """Send a ticket, or a cancellation, to every worker of a chain."""
        assert self.plan is not None and self._watchdog is not None, "the group does not run"
        if not isinstance(message, Cancel):
            self._watchdog.sent(chain, time.monotonic())
        for placement in self.plan.chains[chain]:
            self.send(placement.rank, message)

    def ask(self, question: Question) -> None:
        """Have a prompt embedded or a picture encoded. A thread beside all else encodes pictures and may take long."""
        assert self.plan is not None and self._watchdog is not None, "the group does not run"
        if isinstance(question, EncodePrompt):
            self._watchdog.asked(self.plan.text_rank, time.monotonic())
        self.send(self.plan.text_rank, question)

    async def check_progress(self) -> None:
        """End the group if a worker hangs. A gap since the last check is the front's own, and no worker's silence."""
        now = time.monotonic()
        gap_s, self._checked_at = now - (self._checked_at or now), now
        if self._watchdog is not None and gap_s > ASLEEP_S:
            logger.warning("the server itself stood still for %.1f s", gap_s)
            self._watchdog.slept(gap_s)
        hung = self._watchdog.hung(now) if self._watchdog is not None else None
        if hung is None or self.failure is not None:
            return
        assert self.plan is not None
        placement = self.plan.placements[hung]
        sentence = f"worker {hung} on {placement.device} ({' '.join(placement.names)}) made no progress in time"
        logger.error("%s; its stack follows if it can still run", sentence)
        self._workers[hung].abort()
        await asyncio.sleep(STACK_DUMP_S)
        self.lose(WorkerLost(sentence), hung, LossReason.HUNG)

    def lose(self, error: HiarError, rank: int, reason: LossReason = LossReason.DIED) -> None:
        """The first trouble, at worker ``rank``, ends the group; what follows from it is not told."""
        if self.failure is not None:
            return
        self.failure, self.loss = error, (rank, reason)
        self.kill()
        self._on_lost(error, self._busy_with.get(rank, frozenset()))

    def kill(self) -> None:
        """End all processes now."""
        for worker in self._workers:
            worker.kill()

    async def stop(self) -> None:
        """Ask all workers to leave, and end those that do not."""
        self.failure = self.failure or WorkerLost("the group was stopped")
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    # --- messages ---

    def _open(self, hosts: Hosts, rank: int, node_rank: int, device: str) -> WorkerHandle:
        return hosts.open_worker(
            node_rank,
            device,
            lambda message: self._receive(rank, message),
            lambda sentence: self.lose(WorkerLost(sentence), rank),
        )

    def _receive(self, rank: int, message: FromWorker) -> None:
        if self.failure is not None:
            return
        now = time.monotonic()
        self._vitals.heard(rank)
        match message:
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
            case PromptEncoded() | PromptFailed() if self._watchdog is not None:
                self._watchdog.answered(rank, now)
        self._on_message(rank, message)
