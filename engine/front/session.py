"""Everything that is known of one session, as its reader sees it and as the front keeps it; and the states it passes.

==========  =============================================  ===========================
state       meaning                                        next
==========  =============================================  ===========================
queued      admitted, no pages yet                         running, ended
running     holds pages; blocks are being made             closing, recovering, ended
closing     no more blocks; its close ticket rides         recovering, ended
recovering  its worker group was lost; waits for the next  running, ended
ended       pages are free again
==========  =============================================  ===========================

A video that ends by itself, a cancelled one and a broken one all pass ``closing``: pages are free only when the close
ticket has passed the last stage. Knows no worker; the engine moves it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from engine.errors import HiarError
from engine.front.course import Course
from engine.front.pacing import Progress, realtime_factor
from engine.messages import TensorBytes
from engine.request import EndReason, Fragment, SessionRequest


class SessionState(StrEnum):
    """Where a session stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CLOSING = "closing"
    RECOVERING = "recovering"
    ENDED = "ended"


NEXT_STATES: dict[SessionState, frozenset[SessionState]] = {
    SessionState.QUEUED: frozenset({SessionState.RUNNING, SessionState.ENDED}),
    SessionState.RUNNING: frozenset({SessionState.CLOSING, SessionState.RECOVERING, SessionState.ENDED}),
    SessionState.CLOSING: frozenset({SessionState.RECOVERING, SessionState.ENDED}),
    SessionState.RECOVERING: frozenset({SessionState.RUNNING, SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A loss of workers that a session outlived."""

    block: int
    """The first block made by the new workers that its reader got."""
    exact: bool
    """Whether the video goes on as if nothing had happened, or merely resembles that."""


@dataclass(frozen=True)
class PromptChange:
    """A prompt that was changed while the video ran."""

    block: int
    """The first that follows it."""
    asked_at: float


@dataclass
class Closing:
    """A close ticket that is under way."""

    reason: EndReason
    open_ranks: set[int]
    """Workers that have not passed it."""


@dataclass
class Loss:
    """The last loss of workers that the session was part of."""

    block: int
    """Blocks that were done then."""
    num_vain: int
    """Workers that died over it since it had them."""
    until: float
    """When it ends unless new workers serve."""


@dataclass(frozen=True, kw_only=True)
class SessionStatus:
    """A session at one moment."""

    id: str
    state: SessionState
    queue_position: int | None
    """0 is next; None when not queued."""
    blocks_done: int
    seconds_done: float
    realtime_factor: float | None
    end_reason: EndReason | None
    num_stalls: int
    """Playback deadlines that were missed."""
    stalled_s: float
    recoveries: tuple[Recovery, ...]


class Session:
    """A video in the making. Made by ``Engine.open``; read by one consumer."""

    def __init__(
        self,
        session_id: str,
        progress: Progress,
        *,
        on_taken: Callable[["Session"], None],
        on_close: Callable[["Session"], Awaitable[None]],
        on_prompt: Callable[["Session", str], Awaitable[int]],
        on_status: Callable[["Session"], SessionStatus],
    ) -> None:
        self.id = session_id
        self.progress = progress
        self.state = SessionState.QUEUED
        self.chain: int | None = None
        """The chain that makes it; None while it has no pages."""
        self.course: Course | None = None
        """What its chain was told; None until its prompts are embedded: only then may it start."""
        self.first_prompt: TensorBytes | None = None
        """A prompt that came before that and holds from the first block."""
        self.prompt_changes: deque[PromptChange] = deque()
        """Those that its reader has not seen yet."""
        self.started_at: float | None = None
        """When it left the queue."""
        self.closing: Closing | None = None
        self.loss: Loss | None = None
        self.recoveries: list[Recovery] = []
        self.codecs: str | None = None
        self.init_segment: bytes | None = None
        self.end_reason: EndReason | None = None
        self.failure: HiarError | None = None
        self._on_taken, self._on_close, self._on_prompt, self._on_status = on_taken, on_close, on_prompt, on_status
        self._ready: deque[Fragment] = deque()
        self._changed = asyncio.Event()
        self._freed = asyncio.Event()

    @property
    def request(self) -> SessionRequest:
        """What was asked for."""
        return self.progress.request

    @property
    def has_outcome(self) -> bool:
        """Whether how it ended is decided."""
        return self.end_reason is not None or self.failure is not None

    @property
    def told(self) -> Course:
        """What its chain was told. Only for one that is prepared."""
        assert self.course is not None, f"session {self.id} is not prepared"
        return self.course

    @property
    def next_block(self) -> int:
        """Blocks the reader has taken so far."""
        return self.progress.taken

    async def fragments(self) -> AsyncGenerator[Fragment, None]:
        """Yield fragments as they are made; end when the video ends.

        Raises:
            SessionFailed: the engine could not go on; fragments made before are yielded first.
            EngineUnavailable: the engine drained before the session got its turn.
        """
        while True:
            while self._ready:
                fragment = self._ready.popleft()
                self._on_taken(self)
                yield fragment
            if self.failure is not None:
                raise self.failure
            if self.end_reason is not None:
                return
            self._changed.clear()
            await self._changed.wait()

    async def change_prompt(self, text: str) -> int:
        """Follow another prompt. Returns the first block it holds for; raises ``RequestError``."""
        return await self._on_prompt(self, text)

    async def close(self) -> None:
        """Stop making blocks and free the pages; returns when they are free. Idempotent."""
        await self._on_close(self)

    def status(self) -> SessionStatus:
        """Where the session stands now."""
        return self._on_status(self)

    # --- moved by the engine ---

    def describe(self, queue_position: int | None, now: float) -> SessionStatus:
        """Its status, as its place in the queue and the time are given."""
        progress = self.progress
        return SessionStatus(
            id=self.id,
            state=self.state,
            queue_position=queue_position,
            blocks_done=progress.done,
            seconds_done=progress.start_s(progress.done),
            realtime_factor=realtime_factor(progress, now),
            end_reason=self.end_reason,
            num_stalls=progress.num_stalls,
            stalled_s=progress.stalled_s,
            recoveries=tuple(self.recoveries),
        )

    def move(self, state: SessionState) -> None:
        """Enter a state; anything but a step of the table above is our bug."""
        assert state in NEXT_STATES[self.state], f"session {self.id}: {self.state} -> {state}"
        self.state = state
        if state == SessionState.ENDED:
            self._freed.set()
        self._changed.set()

    def put(self, fragment: Fragment) -> None:
        """Hand a fragment to the reader. Once the outcome is told there is no reader for it."""
        assert not self.has_outcome, "a block came after the end"
        self._ready.append(fragment)
        self._changed.set()

    def finish(self, outcome: EndReason | HiarError) -> None:
        """Tell the reader how it ended, once what was made before is read. The first outcome counts."""
        if not self.has_outcome:
            if isinstance(outcome, EndReason):
                self.end_reason = outcome
            else:
                self.failure = outcome
        self._changed.set()

    async def freed(self) -> None:
        """Wait until the pages are free."""
        await self._freed.wait()
