"""The one record of a video: everything that is known of it, and the states it passes.

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
ticket has passed the last stage. A plain value: the desk alone moves it.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.errors import HiarError
from engine.front.course import Course
from engine.front.pacing import Progress, realtime_factor
from engine.messages import TensorBytes
from engine.request import EndReason, Fragment, VideoRequest


class VideoState(StrEnum):
    """Where a video stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CLOSING = "closing"
    RECOVERING = "recovering"
    ENDED = "ended"


NEXT_STATES: dict[VideoState, frozenset[VideoState]] = {
    VideoState.QUEUED: frozenset({VideoState.RUNNING, VideoState.ENDED}),
    VideoState.RUNNING: frozenset({VideoState.CLOSING, VideoState.RECOVERING, VideoState.ENDED}),
    VideoState.CLOSING: frozenset({VideoState.RECOVERING, VideoState.ENDED}),
    VideoState.RECOVERING: frozenset({VideoState.RUNNING, VideoState.ENDED}),
    VideoState.ENDED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A loss of workers that a video outlived."""

    block: int
    """The first block made by the new workers that its reader got."""
    exact: bool
    """Whether the video goes on as if nothing had happened, or merely resembles that."""


class Bell(Protocol):
    """Tells who waits for a video that something changed."""

    def ring(self) -> None:
        """Wake all who wait."""
        ...

    async def rung(self) -> None:
        """Wait for the next ring."""
        ...


@dataclass(frozen=True)
class PromptChange:
    """A prompt that was changed while the video ran."""

    block: int
    """The first that follows it."""
    asked_at: float


@dataclass(frozen=True)
class WaitingPrompt:
    """A changed prompt that waits until the one before it is embedded."""

    text: str
    number: int
    asked_at: float


@dataclass
class Turn:
    """What ``Turns`` keeps of a video while it holds pages."""

    number: int = 0
    """Entries with another number are of the past."""
    chain: int | None = None
    """Where it is counted."""
    share: float = 0.0
    num_inflight: int = 0
    place: tuple[float, bool, int, float] | None = None
    """Moment and urgency that it is lined up with; None if it is not."""


@dataclass
class Closing:
    """A close ticket that is under way."""

    reason: EndReason
    open_ranks: set[int]
    """Workers that have not passed it."""


@dataclass
class Loss:
    """The last loss of workers that the video was part of."""

    block: int
    """Blocks that were done then."""
    num_vain: int
    """Workers that died over it since it had them."""
    until: float
    """When it ends unless new workers serve."""


@dataclass(frozen=True, kw_only=True)
class VideoStatus:
    """A video at one moment."""

    id: str
    state: VideoState
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


class Video:
    """A video in the making."""

    def __init__(self, video_id: str, progress: Progress, bell: Bell) -> None:
        self.id = video_id
        self.progress = progress
        self.bell = bell
        self.state = VideoState.QUEUED
        self.arrival = 0
        """Its number in the order in which videos came."""
        self.chain: int | None = None
        """The chain that makes it; None while it has no pages."""
        self.turn = Turn()
        self.embedded: list[TensorBytes] = []
        """Of the request's prompts, in their order, as far as they are known."""
        self.first_prompt: TensorBytes | None = None
        """A prompt that came before all were known and holds from the first block."""
        self.is_embedding = False
        """Whether a changed prompt is under way to its embedding."""
        self.waiting_change: WaitingPrompt | None = None
        """The newest changed prompt behind that."""
        self.course: Course | None = None
        """What its chain was told; None until its prompts are embedded: only then may it start."""
        self.prompt_changes: deque[PromptChange] = deque()
        """Those that its reader has not seen yet."""
        self.started_at: float | None = None
        """When it left the queue."""
        self.closing: Closing | None = None
        self.loss: Loss | None = None
        self.recoveries: list[Recovery] = []
        self.codecs: str | None = None
        self.init_segment: bytes | None = None
        self.ready: deque[Fragment] = deque()
        """Fragments that its reader has not taken."""
        self.end_reason: EndReason | None = None
        self.failure: HiarError | None = None

    @property
    def request(self) -> VideoRequest:
        """What was asked for."""
        return self.progress.request

    @property
    def has_outcome(self) -> bool:
        """Whether how it ended is decided."""
        return self.end_reason is not None or self.failure is not None

    @property
    def told(self) -> Course:
        """What its chain was told. Only for one that is prepared."""
        assert self.course is not None, f"video {self.id} is not prepared"
        return self.course

    def describe(self, queue_position: int | None, now: float) -> VideoStatus:
        """Its status, as its place in the queue and the time are given."""
        progress = self.progress
        return VideoStatus(
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

    def move(self, state: VideoState) -> None:
        """Enter a state; anything but a step of the table above is our bug."""
        assert state in NEXT_STATES[self.state], f"video {self.id}: {self.state} -> {state}"
        self.state = state

    def put(self, fragment: Fragment) -> None:
        """A fragment for the reader. Once the outcome is told there is no reader for it."""
        assert not self.has_outcome, "a block came after the end"
        self.ready.append(fragment)

    def finish(self, outcome: EndReason | HiarError) -> None:
        """How it ended, once what was made before is read. The first outcome counts."""
        if self.has_outcome:
            return
        if isinstance(outcome, EndReason):
            self.end_reason = outcome
        else:
            self.failure = outcome
