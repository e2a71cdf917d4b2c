"""Admits sessions, issues their tickets in one order, and routes what comes back (design, laws 2 and 9).

Event driven: every arrival, delivery, close or passing of time ends in ``_pump``, which admits who has room, issues
every block that may go, the most urgent session first, and sets one timer for the next that may go later. Knows no
process; it is given a ``send``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.config import LATENT_STRIDE_PX, EngineConfig
from engine.errors import SESSION_FAILURES, HiarError, Overloaded, SessionFailed, UnknownSession
from engine.front.pacing import ready_at, realtime_factor, urgency
from engine.front.prompts import PromptEncoder
from engine.front.session import Session, SessionState, SessionStatus
from engine.messages import (
    BlockDone,
    BlockTicket,
    Cancel,
    CloseTicket,
    InitReady,
    OpenTicket,
    PromptEncoded,
    PromptTicket,
    SessionBroken,
    SessionClosed,
    TensorBytes,
)
from engine.request import EndReason, EngineLoad, Fragment
from engine.schedule import block_at_frame, pages_per_session

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

DEFAULT_RETRY_S = 10.0


class Dispatcher:
    """All sessions of one chain."""

    def __init__(self, config: EngineConfig, send: Callable[[Any], None], clock: Clock) -> None:
        self._config, self._send, self._clock = config, send, clock
        self._prompts = PromptEncoder(send)
        self._sessions: dict[str, Session] = {}
        self._waiting: deque[Session] = deque()
        self._coming_prompts: dict[str, dict[int, TensorBytes]] = {}
        """By session: the prompts that still lie ahead, by the block from which they hold."""
        self._prepared: set[str] = set()
        """Sessions whose own prompts are all embedded: only these may start."""
        self._closing_reason: dict[str, EndReason] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._serving = False

    @property
    def load(self) -> EngineLoad:
        """How busy the chain is."""
        per_session = pages_per_session(self._config.manifest.rollout)
        return EngineLoad(
            running=self._num_holding,
            waiting=len(self._waiting),
            slots=self._config.max_sessions,
            pages_used=self._num_holding * per_session,
            num_pages=self._config.max_sessions * per_session,
        )

    def session(self, session_id: str) -> Session:
        """A session that has not ended. Raises ``UnknownSession``."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise UnknownSession(f"no session {session_id} is running", "id") from None

    def admit(self, session: Session) -> None:
        """Queue a new session. Raises ``Overloaded`` when the queue is full."""
        free = self._config.max_sessions - self._num_holding
        if len(self._waiting) - free >= self._config.max_queue:
            message = f"{self._num_holding} sessions run and {len(self._waiting)} wait; all places are taken"
            raise Overloaded(message, self._retry_after_s())
        self._sessions[session.id] = session
        self._waiting.append(session)
        task = asyncio.get_running_loop().create_task(self._prepare(session))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def change_prompt(self, session: Session, text: str) -> int:
        """Follow another prompt from the next block that has no ticket yet; returns that block."""
        embedding = await self._prompts.embed(text)
        if session.state not in {SessionState.QUEUED, SessionState.RUNNING}:
            raise UnknownSession(f"session {session.id} takes no more prompts: it is {session.state}", "id")
        block = session.progress.issued
        self._coming_prompts.setdefault(session.id, {})[block] = embedding
        return block

    async def cancel(self, session: Session) -> None:
        """Close a session nobody waits for; returns when its pages are free."""
        session.finish(EndReason.CANCELLED)
        self._abandon(session)
        await session.freed()

    def status(self, session: Session) -> SessionStatus:
        """Where a session stands."""
        progress = session.progress
        return SessionStatus(
            id=session.id,
            state=session.state,
            queue_position=self._waiting.index(session) if session in self._waiting else None,
            blocks_done=progress.done,
            seconds_done=progress.start_s(progress.done),
            realtime_factor=realtime_factor(progress, self._clock()),
            end_reason=session.end_reason,
        )

    def taken(self, session: Session) -> None:
        """The reader took a block: playback runs, and there may be room for the next."""
        if session.progress.playing_since is None:
            session.progress.playing_since = self._clock()
        self._pump()

    def drain(self, refusal: HiarError) -> None:
        """End every running session at the next block boundary; queued ones end with ``refusal``."""
        for session in list(self._sessions.values()):
            if session.state == SessionState.QUEUED:
                session.finish(refusal)
                self._remove(session)
            elif session.state == SessionState.RUNNING:
                self._close_behind_blocks(session, EndReason.DRAIN)

    async def emptied(self) -> None:
        """Wait until no session holds pages."""
        for session in list(self._sessions.values()):
            await session.freed()

    # --- the worker's side ---

    def worker_ready(self) -> None:
        """A worker serves: ask it what is open, and go on."""
        self._serving = True
        self._prompts.ask_again()
        self._pump()

    def worker_lost(self, error: HiarError, *, for_good: bool) -> None:
        """The worker is gone and with it all pages: sessions that held some end; queued ones wait for the next."""
        self._serving = False
        for session in list(self._sessions.values()):
            if for_good or session.state != SessionState.QUEUED:
                session.finish(error)
                self._remove(session)
        if for_good:
            self._prompts.fail(error)

    def receive(self, message: Any) -> None:
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
            case SessionBroken():
                session.finish(SESSION_FAILURES.get(message.code, SessionFailed)(message.message))
                self._abandon(session)
            case SessionClosed():
                session.finish(self._closing_reason.pop(session.id, EndReason.CANCELLED))
                self._remove(session)
                self._check_pages(message.pages_used)
        self._pump()

    def _block_done(self, session: Session, message: BlockDone) -> None:
        progress = session.progress
        progress.done += 1
        progress.last_done_at = self._clock()
        fragment = Fragment(
            block=message.block,
            data=message.data if message.latents is None else message.latents.data,
            num_frames=message.num_frames,
            start_s=progress.start_s(message.block),
            duration_s=message.num_frames / session.request.fps,
        )
        session.put(fragment)

    # --- tickets ---

    async def _prepare(self, session: Session) -> None:
        """Have all prompts of a new session embedded; only then can it start."""
        coming = {}
        try:
            for prompt in session.request.prompts:
                block = block_at_frame(self._config.manifest.rollout, round(prompt.at_s * session.request.fps))
                coming[block] = await self._prompts.embed(prompt.text)
        except HiarError as error:
            session.finish(error)
            return
        if session.state != SessionState.QUEUED:
            return  # closed meanwhile
        self._coming_prompts[session.id] = coming | self._coming_prompts.get(session.id, {})
        self._prepared.add(session.id)
        self._pump()

    def _pump(self) -> None:
        if not self._serving:
            return
        self._start_waiting()
        next_at = self._issue_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_at is not None:
            delay_s = max(0.0, next_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._pump)

    def _start_waiting(self) -> None:
        for session in list(self._waiting):
            if self._num_holding >= self._config.max_sessions:
                return
            if session.id in self._prepared:
                self._waiting.remove(session)
                self._open(session)

    def _open(self, session: Session) -> None:
        request = session.request
        session.move(SessionState.RUNNING)
        self._send(
            OpenTicket(
                session=session.id,
                seed=request.seed,
                latent_height=request.height_px // LATENT_STRIDE_PX,
                latent_width=request.width_px // LATENT_STRIDE_PX,
                fps=request.fps,
                quality=request.quality,
                output=request.output,
                embedding=self._coming_prompts[session.id].pop(0),
            )
        )

    def _issue_all(self) -> float | None:
        """Issue every block that may go now; returns when the next one may, if time alone decides."""
        while True:
            now = self._clock()
            running = [s for s in self._sessions.values() if s.state == SessionState.RUNNING]
            moments = [(ready_at(s.progress, self._config, now), s) for s in running]
            ready = [s for moment, s in moments if moment is not None and moment <= now]
            if not ready:
                return min((moment for moment, _ in moments if moment is not None), default=None)
            self._issue(min(ready, key=lambda s: urgency(s.progress, now)))

    def _issue(self, session: Session) -> None:
        progress = session.progress
        block = progress.issued
        coming = self._coming_prompts.get(session.id, {})
        due = [at for at in sorted(coming) if at <= block]
        if due:
            self._send(PromptTicket(session=session.id, embedding=coming[due[-1]]))
            for at in due:
                del coming[at]
        progress.issued += 1
        self._send(
            BlockTicket(
                session=session.id, block=block, num_frames=progress.shown_frames(block), last=progress.all_issued
            )
        )
        if progress.all_issued:
            self._close_behind_blocks(session, EndReason.COMPLETED)

    def _close_behind_blocks(self, session: Session, reason: EndReason) -> None:
        """Send the close ticket: blocks that have tickets are still made."""
        session.move(SessionState.CLOSING)
        self._closing_reason[session.id] = reason
        self._send(CloseTicket(session=session.id))

    def _abandon(self, session: Session) -> None:
        """Free a session's pages without making what is under way."""
        match session.state:
            case SessionState.QUEUED:
                self._remove(session)
            case SessionState.RUNNING:
                self._send(Cancel(session=session.id))
                self._close_behind_blocks(session, EndReason.CANCELLED)
            case SessionState.CLOSING:
                self._send(Cancel(session=session.id))
            case SessionState.ENDED:
                pass

    def _remove(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._coming_prompts.pop(session.id, None)
        self._prepared.discard(session.id)
        self._closing_reason.pop(session.id, None)
        if session in self._waiting:
            self._waiting.remove(session)
        session.move(SessionState.ENDED)

    @property
    def _num_holding(self) -> int:
        return sum(s.state in {SessionState.RUNNING, SessionState.CLOSING} for s in self._sessions.values())

    def _check_pages(self, pages_used: int) -> None:
        if self._num_holding == 0 and pages_used:
            logger.error("%d pages are taken and no session holds any", pages_used)

    def _retry_after_s(self) -> float:
        """When a place may be free: the shortest remaining video, or a guess when all are endless."""
        remaining = [
            s.progress.start_s(s.progress.num_blocks) - s.progress.start_s(s.progress.done)
            for s in self._sessions.values()
            if s.progress.num_blocks is not None and s.state != SessionState.QUEUED
        ]
        return max(1.0, min(remaining, default=DEFAULT_RETRY_S))
