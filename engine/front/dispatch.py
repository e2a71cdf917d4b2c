"""Admits sessions, issues their tickets in one order, and routes what comes back (design, laws 2 and 9).

Event driven: every arrival, delivery, close or passing of time ends in ``_pump``, which starts who has room, issues
every block that may go, the most urgent session first, and sets one timer for the next that may go later. What a lost
worker group means to sessions is in ``engine.front.recovery``. Knows no process; it is given a way to send.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from engine.config import EngineConfig
from engine.errors import SESSION_FAILURES, HiarError, Overloaded, SessionFailed, UnknownSession, WorkerLost
from engine.front.admission import HOLDING, chain_with_room, num_inflight, num_startable, retry_after_s
from engine.front.milestones import Milestones
from engine.front.pacing import ready_at, urgency
from engine.front.preparation import Preparation
from engine.front.prompts import PromptEncoder
from engine.front.recovery import Recoveries
from engine.front.session import Closing, Session, SessionState, SessionStatus
from engine.front.tickets import Workers, block_ticket, open_ticket
from engine.law.placement import Plan
from engine.messages import (
    BlockDone,
    BlockRepeated,
    Cancel,
    CloseTicket,
    ForFront,
    InitReady,
    LatentsSaved,
    PromptEncoded,
    SessionBroken,
    SessionClosed,
    TensorBytes,
    Ticket,
)
from engine.observe import Observer
from engine.request import EndReason, Fragment

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


class Dispatcher:
    """All sessions of an engine."""

    def __init__(self, config: EngineConfig, workers: Workers, clock: Clock, observer: Observer) -> None:
        self._config, self._workers, self._clock, self._observer = config, workers, clock, observer
        self._milestones = Milestones(observer)
        self._prompts = PromptEncoder(workers.ask, observer)
        self._preparation = Preparation(self._prompts, config.manifest.rollout, self._pump, self._give_up)
        self._recoveries = Recoveries(config)
        self._sessions: dict[str, Session] = {}
        self._waiting: deque[Session] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._plan: Plan | None = None
        """What is served; None while no group is."""

    @property
    def num_running(self) -> int:
        """Sessions that hold pages, or held some until their group was lost."""
        states = HOLDING | {SessionState.RECOVERING}
        return sum(session.state in states for session in self._sessions.values())

    @property
    def num_waiting(self) -> int:
        """Sessions in the queue."""
        return len(self._waiting)

    @property
    def blocks_buffered(self) -> int:
        """Blocks that wait for their readers."""
        return sum(session.progress.done - session.progress.taken for session in self._sessions.values())

    def session(self, session_id: str) -> Session:
        """A session that has not ended. Raises ``UnknownSession``."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise UnknownSession(f"no session {session_id} is running", "id") from None

    def admit(self, session: Session) -> None:
        """Queue a new session. Raises ``Overloaded`` when the queue is full."""
        if self._num_queued_with(session) > self._config.max_queue:
            message = f"{self.num_running} sessions run and {len(self._waiting)} wait; there is no room for another"
            raise Overloaded(message, retry_after_s(self._sessions.values()))
        self._sessions[session.id] = session
        self._waiting.append(session)
        self._preparation.begin(session)

    async def change_prompt(self, session: Session, text: str) -> int:
        """Follow another prompt from the next block that has no ticket yet; returns that block."""
        asked_at = self._clock()
        embedding = await self._prompts.embed(text)
        if session.state not in {SessionState.QUEUED, SessionState.RUNNING, SessionState.RECOVERING}:
            raise UnknownSession(f"session {session.id} takes no more prompts: it is {session.state}", "id")
        block = max(session.progress.issued, session.progress.done)
        if session.course is not None:
            session.course.set_prompt(block, embedding)
        else:
            session.first_prompt = embedding
        self._milestones.prompt_changed(session, block, asked_at)
        return block

    async def cancel(self, session: Session) -> None:
        """Close a session nobody waits for; returns when its pages are free."""
        session.finish(EndReason.CANCELLED)
        self._abandon(session)
        await session.freed()

    def status(self, session: Session) -> SessionStatus:
        """Where a session stands."""
        return session.describe(self._waiting.index(session) if session in self._waiting else None, self._clock())

    def taken(self, session: Session) -> None:
        """The reader took a block: playback runs, and there may be room for the next."""
        now = self._clock()
        self._milestones.taken(session, session.progress.take(now), now)
        self._pump()

    def drain(self, refusal: HiarError) -> None:
        """End every running session at the next block boundary; queued ones end with ``refusal``."""
        for session in list(self._sessions.values()):
            match session.state:
                case SessionState.QUEUED:
                    session.finish(refusal)
                    self._remove(session)
                case SessionState.RUNNING:
                    self._close_behind_blocks(session, EndReason.DRAIN)
                case SessionState.RECOVERING:
                    session.finish(EndReason.DRAIN)
                    self._remove(session)

    async def emptied(self) -> None:
        """Wait until no session holds pages."""
        for session in list(self._sessions.values()):
            await session.freed()

    # --- the workers' side ---

    def serve(self, plan: Plan) -> None:
        """A worker group serves: take up what the last one lost, and go on."""
        self._plan = plan
        self._prompts.ask_again()
        for session in [one for one in self._sessions.values() if one.state == SessionState.RECOVERING]:
            block = self._recoveries.way_back(session, plan)
            if block is None:
                self._give_up(session, WorkerLost("too little is known of the video to go on with new workers"))
                continue
            self._reopen(session, block)
            self._observer.session_recovered(exact=block == 0)
        self._pump()

    def group_lost(self, error: HiarError, suspects: frozenset[str], *, for_good: bool) -> None:
        """All workers are gone and with them all pages: sessions that held some wait for the next group.

        ``suspects`` are the sessions that the worker at fault was busy with.
        """
        self._plan = None
        for session in list(self._sessions.values()):
            if for_good:
                session.finish(error)
                self._remove(session)
            elif session.state in HOLDING:
                self._lose(session, error, suspected=session.id in suspects)
        if for_good:
            self._prompts.fail(error)
        self._pump()

    def receive(self, rank: int, message: ForFront) -> None:
        """Route a worker's message."""
        if isinstance(message, PromptEncoded):
            self._prompts.answer(message)
            return
        session = self._sessions.get(message.session)
        if session is None:
            return  # it ended while the message was under way
        match message:
            case InitReady():
                session.init_segment, session.codecs = message.data, message.codecs
            case BlockDone():
                self._block_done(session, message)
            case BlockRepeated():
                session.progress.returned = message.block + 1
            case LatentsSaved():
                session.told.save(message)
                session.told.forget_before(session.progress.done)
            case SessionBroken():
                session.finish(SESSION_FAILURES.get(message.code, SessionFailed)(message.message))
                self._abandon(session)
            case SessionClosed():
                self._closed_at(session, rank)
        self._pump()

    def _block_done(self, session: Session, message: BlockDone) -> None:
        progress = session.progress
        progress.returned = message.block + 1
        if session.has_outcome:
            return  # cancelled or broken: its reader takes no more
        assert message.block == progress.done, f"block {message.block} came, {progress.done} is next"
        progress.done += 1
        self._recoveries.note_progress(session, self._plan)
        fragment = Fragment(
            block=message.block,
            data=message.data if message.latents is None else message.latents.data,
            num_frames=message.num_frames,
            start_s=progress.start_s(message.block),
            duration_s=message.num_frames / session.request.fps,
        )
        now = self._clock()
        self._milestones.made(progress, fragment, now)
        progress.last_done_at = now
        session.put(fragment)

    def _closed_at(self, session: Session, rank: int) -> None:
        """A worker has freed the session's pages; the last one to do so ends it."""
        assert session.closing is not None, f"session {session.id} was closed by nobody"
        session.closing.open_ranks.discard(rank)
        if not session.closing.open_ranks:
            session.finish(session.closing.reason)
            self._remove(session)

    # --- tickets ---

    def _pump(self) -> None:
        for session in self._recoveries.overdue(self._sessions.values(), self._clock()):
            self._give_up(session, self._recoveries.too_late)
        moments = [self._recoveries.next_overdue_at(self._sessions.values())]
        if self._plan is not None:
            self._start_waiting(self._plan)
            moments.append(self._issue_all())
        self._set_timer(min((moment for moment in moments if moment is not None), default=None))

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay_s = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._pump)

    def _num_queued_with(self, session: Session) -> int:
        """Sessions that would have to wait for a place if this one came too."""
        line = [waiting.request for waiting in (*self._waiting, session)]
        if self._plan is None:
            return len(line)
        return len(line) - num_startable(self._config, self._plan, self._sessions.values(), line)

    def _start_waiting(self, plan: Plan) -> None:
        """Start sessions in the order they came, passing over those whose prompts are still being embedded."""
        for session in [waiting for waiting in self._waiting if waiting.course is not None]:
            chain = chain_with_room(self._config, plan, self._sessions.values(), session.request)
            if chain is None:
                return
            self._waiting.remove(session)
            self._open(session, chain, session.told.prompt_at(0))
            self._milestones.started(session, self._clock())

    def _open(self, session: Session, chain: int, embedding: TensorBytes) -> None:
        session.move(SessionState.RUNNING)
        session.chain = chain
        self._send(session, open_ticket(session, embedding))

    def _reopen(self, session: Session, block: int) -> None:
        """Open a lost session again: made again from block 0, or restored to where ``block`` is the next."""
        assert self._plan is not None
        course, progress = session.told, session.progress
        chain = chain_with_room(self._config, self._plan, self._sessions.values(), session.request)
        self._open(session, session.chain or 0 if chain is None else chain, course.opening_prompt(block))
        for ticket in course.restoring_tickets(block):
            self._send(session, ticket)
        progress.issued = progress.returned = block

    def _issue_all(self) -> float | None:
        """Issue every block that may go now; returns when the next one may, if time alone decides."""
        while True:
            now = self._clock()
            running = [s for s in self._sessions.values() if s.state == SessionState.RUNNING and self._takes_more(s)]
            moments = [(ready_at(s.progress, self._config, now), s) for s in running]
            ready = [s for moment, s in moments if moment is not None and moment <= now]
            if not ready:
                return min((moment for moment, _ in moments if moment is not None), default=None)
            self._issue(min(ready, key=lambda s: urgency(s.progress, now)))

    def _takes_more(self, session: Session) -> bool:
        """Whether the session's chain has room for a block. What waits in front of it can still be overtaken by a more
        urgent session's; what is in it cannot."""
        assert self._plan is not None and session.chain is not None
        limit = self._config.inflight_limit(len(self._plan.chains[session.chain]))
        return num_inflight(self._sessions.values(), session.chain) < limit

    def _issue(self, session: Session) -> None:
        progress, block = session.progress, session.progress.issued
        change = session.told.prompt_change(block)
        if change is not None:
            self._send(session, change)
        progress.issued += 1
        save = self._plan is not None and self._recoveries.needs_saving(block, self._plan)
        ticket = block_ticket(session, block, save=save)
        self._send(session, ticket)
        if progress.all_issued:
            self._close_behind_blocks(session, EndReason.COMPLETED)

    def _send(self, session: Session, message: Ticket | Cancel) -> None:
        assert session.chain is not None, f"session {session.id} has no chain"
        self._workers.send_chain(session.chain, message)

    # --- ends ---

    def _close_behind_blocks(self, session: Session, reason: EndReason) -> None:
        """Send the close ticket: blocks that have tickets are still made."""
        assert self._plan is not None and session.chain is not None
        session.move(SessionState.CLOSING)
        ranks = {part.rank for part in self._plan.chains[session.chain]}
        session.closing = Closing(reason=reason, open_ranks=ranks)
        self._send(session, CloseTicket(session=session.id))

    def _abandon(self, session: Session) -> None:
        """Free a session's pages without making what is under way."""
        match session.state:
            case SessionState.QUEUED | SessionState.RECOVERING:
                self._remove(session)
            case SessionState.RUNNING:
                self._send(session, Cancel(session=session.id))
                self._close_behind_blocks(session, EndReason.CANCELLED)
            case SessionState.CLOSING:
                self._send(session, Cancel(session=session.id))
            case SessionState.ENDED:
                pass

    def _lose(self, session: Session, error: HiarError, *, suspected: bool) -> None:
        """Its workers are gone. One that was ending anyway ends here, at a block boundary."""
        reason = EndReason.COMPLETED if session.closing is None else session.closing.reason
        session.closing = None
        if session.has_outcome or reason != EndReason.COMPLETED or session.progress.all_done:
            session.finish(reason)
            self._remove(session)
        elif self._recoveries.may_wait(session, self._clock(), suspected=suspected):
            session.move(SessionState.RECOVERING)
        else:
            self._give_up(session, error)

    def _give_up(self, session: Session, error: HiarError) -> None:
        session.finish(error)
        self._remove(session)

    def _remove(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._milestones.ended(session)
        if session in self._waiting:
            self._waiting.remove(session)
        session.move(SessionState.ENDED)
