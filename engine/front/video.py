"""The one record of a video: everything that is known of it, and the states it passes.

==========  =============================================  ===========================
state       meaning                                        next
==========  =============================================  ===========================
queued      waits for pages                                running, sleeping, ended
running     holds pages; blocks are being made, or it is   closing, recovering,
            paused                                         sleeping, ended
closing     no more blocks; its close ticket rides         recovering, sleeping, ended
recovering  its worker group was lost; waits for the next  running, sleeping, ended
sleeping    paused, and it holds no pages any more         queued, ended
ended       pages are free again
==========  =============================================  ===========================

A video that ends by itself, a cancelled one and a broken one all pass ``closing``: pages are free only when the close
ticket has passed the last stage. One that falls asleep passes it too, and is opened from its log when it is resumed. An
ended one keeps its log for readers until it is forgotten. A plain value: the desk alone moves it.
"""

from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from engine.errors import HiarError, StorageFailed
from engine.front.kept import KeptVideo, Recovery
from engine.front.log import BlockLog
from engine.front.pacing import Cursor, Progress, realtime_factor
from engine.front.steps import Steps
from engine.front.story import Story
from engine.request import EndReason, TensorBytes, VideoRequest

Place = tuple[int, int]
"""In the queue: where it stands among those that came, and its own number among them."""


class VideoState(StrEnum):
    """Where a video stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CLOSING = "closing"
    RECOVERING = "recovering"
    SLEEPING = "sleeping"
    ENDED = "ended"


NEXT_STATES: dict[VideoState, frozenset[VideoState]] = {
    VideoState.QUEUED: frozenset({VideoState.RUNNING, VideoState.SLEEPING, VideoState.ENDED}),
    VideoState.RUNNING: frozenset(
        {VideoState.CLOSING, VideoState.RECOVERING, VideoState.SLEEPING, VideoState.ENDED},
    ),
    VideoState.CLOSING: frozenset({VideoState.RECOVERING, VideoState.SLEEPING, VideoState.ENDED}),
    VideoState.RECOVERING: frozenset({VideoState.RUNNING, VideoState.SLEEPING, VideoState.ENDED}),
    VideoState.SLEEPING: frozenset({VideoState.QUEUED, VideoState.ENDED}),
    VideoState.ENDED: frozenset(),
}


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
class PromptMark:
    """A prompt and where the video begins to follow it."""

    block: int
    at_s: float
    """Playback time of that block."""
    text: str


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

    reason: EndReason | None
    """What the video ends with; None if it only falls asleep."""
    open_ranks: set[int]
    """Workers that have not passed it."""

    @property
    def is_behind_all(self) -> bool:
        """Whether it closes a whole video: all blocks in front of it are wanted."""
        return self.reason in {EndReason.COMPLETED, EndReason.LIMIT}


@dataclass(frozen=True)
class Alone:
    """Nobody reads the video any more."""

    until: float
    """When it ends."""
    reason: EndReason
    """What it ends with."""


@dataclass
class Polling:
    """The one reader that all who poll a video are together."""

    cursor: Cursor
    until: float
    """When it leaves unless somebody asks again."""
    hold_s: float
    """How long it stays after a request."""


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
    """A video at one moment. Moments are seconds of Unix time."""

    id: str
    request: VideoRequest
    state: VideoState
    queue_position: int | None
    """1 is next; None when not queued."""
    is_paused: bool
    created_at: float
    ended_at: float | None
    expires_at: float | None
    """When an ended one is forgotten, at the latest."""
    num_blocks: int | None
    """Of the whole video; None when endless."""
    blocks_done: int
    seconds_done: float
    first_block: int
    """The earliest that can still be read."""
    num_bytes: int
    """Of all fragments that were made."""
    lead_s: float | None
    """How far the newest block is ahead of its leading reader's playback; None before that."""
    realtime_factor: float | None
    num_stalls: int
    """Playback deadlines that were missed."""
    stalled_s: float
    num_readers: int
    prompts: tuple[PromptMark, ...]
    end_reason: EndReason | None
    failure: HiarError | None
    recoveries: tuple[Recovery, ...]
    is_queued: bool
    """Whether it waits for a place, also when it is paused before it had one."""


class Video:
    """A video, from its request until it is forgotten."""

    end_reason: EndReason | None = None
    failure: HiarError | None = None
    kept: KeptVideo | None = None
    """Where its log lies outside this process; None where it does not."""
    past_prompts: tuple[tuple[int, str], ...] = ()
    """Block and text of those that it was told in an earlier life of the server."""
    num_restored: int = 0
    """Blocks that it came with from there."""
    restored_at: float | None = None
    """When it came from there."""
    num_told: int = 0
    """Blocks that its story has told of."""
    is_settled: bool = False
    """Whether its story has told how it ended. That waits until all that was made is stored."""

    def __init__(
        self, video_id: str, progress: Progress, bell: Bell, log: BlockLog, *, linger_s: float | None, created_at: float
    ) -> None:
        """``created_at``: Unix time. ``linger_s``: how long it lives without readers; None needs none."""
        self.id = video_id
        self.progress = progress
        self.bell = bell
        self.log = log
        self.story = Story()
        self.steps = Steps()
        self.linger_s = linger_s
        self.created_at = created_at
        self.state = VideoState.QUEUED
        self.place: Place = 0, 0
        """In the queue, where it waits or waited last."""
        self.chain: int | None = None
        """The chain that makes it; None while it has no pages."""
        self.turn = Turn()
        self.embedded: list[TensorBytes] = []
        """Of the request's prompts, in their order, as far as they are known."""
        self.first_prompt: tuple[int, str, TensorBytes] | None = None
        """A prompt that came before all were known, and the first block, from which it holds."""
        self.is_embedding = False
        """Whether a changed prompt is under way to its embedding."""
        self.waiting_change: WaitingPrompt | None = None
        """The newest changed prompt behind that."""
        self.prompt_changes: deque[PromptChange] = deque()
        """Those that no reader has seen yet."""
        self.readers: list[Cursor] = []
        self.keeper = Cursor(first_block=0, next_block=0) if linger_s is None else None
        """Takes every block as it is made, so that a video goes on without readers."""
        self.polling: Polling | None = None
        """None while nobody polls."""
        self.alone: Alone | None = None
        """Its last reader left and it ends unless another comes; None while that is not so."""
        self.started_at: float | None = None
        """When it left the queue."""
        self.ended_at: float | None = None
        """When its pages were free."""
        self.is_forgotten = False
        self.closing: Closing | None = None
        self.loss: Loss | None = None
        self.recoveries: list[Recovery] = []

    @property
    def request(self) -> VideoRequest:
        """What was asked for."""
        return self.progress.request

    def begin_with(self, blocks: tuple[TensorBytes, ...]) -> None:
        """What its first blocks are is known: the picture that it starts from, encoded."""
        self.progress.request = replace(self.request, start=None, initial=blocks)

    def drop_pixels(self) -> None:
        """It ended before its picture was encoded, which is kept no longer."""
        if self.request.start is not None:
            self.progress.request = replace(self.request, start=replace(self.request.start, data=b""))

    @property
    def has_outcome(self) -> bool:
        """Whether how it ended is decided."""
        return self.end_reason is not None or self.failure is not None

    @property
    def is_falling_asleep(self) -> bool:
        """Whether a close ticket is under way that ends nothing."""
        return self.closing is not None and self.closing.reason is None

    @property
    def is_job(self) -> bool:
        """Whether it has an end and goes on to it without readers."""
        return self.keeper is not None and self.progress.num_blocks is not None

    @property
    def queued_at(self) -> float:
        """When it came into the queue."""
        return self.progress.opened_at if self.restored_at is None else self.restored_at

    @property
    def num_safe(self) -> int:
        """Blocks that may be told of: those that are in the log, also where that is stored."""
        done = self.progress.done
        return done if self.kept is None else min(done, self.kept.num_stored)

    @property
    def prompts(self) -> tuple[PromptMark, ...]:
        """The prompts that the kept blocks follow, and later ones."""
        if not self.log.texts:
            return tuple(PromptMark(0, prompt.at_s, prompt.text) for prompt in self.request.prompts[:1])
        start_s = self.progress.start_s
        return tuple(PromptMark(block, start_s(block), text) for block, text in sorted(self.log.texts.items()))

    def describe(self, queue_position: int | None, now: float, keep_s: float) -> VideoStatus:
        """Its status; its place in the queue and the time are given, and how long an ended one is kept."""
        progress, log = self.progress, self.log
        is_watched = progress.leader in self.readers and not self.has_outcome
        standing_s = progress.uncounted_stall_s(now) if is_watched else 0.0
        ended_at = (
            None
            if self.ended_at is None or not self.is_settled
            else self.created_at + self.ended_at - progress.opened_at
        )
        return VideoStatus(
            id=self.id,
            request=self.request,
            state=self.state,
            queue_position=queue_position,
            is_paused=progress.is_paused and not self.has_outcome,
            created_at=self.created_at,
            ended_at=ended_at,
            expires_at=None if ended_at is None else ended_at + keep_s,
            num_blocks=progress.num_blocks,
            blocks_done=self.num_safe,
            seconds_done=self.seconds_of(self.num_safe),
            first_block=log.first_block,
            num_bytes=log.made_bytes,
            lead_s=None if self.has_outcome else progress.lead_s(now),
            realtime_factor=realtime_factor(progress, now if self.ended_at is None else self.ended_at),
            num_stalls=progress.num_stalls + (standing_s > 0 and progress.stalled_block != progress.done),
            stalled_s=progress.stalled_s + standing_s,
            num_readers=len(self.readers),
            prompts=self.prompts,
            end_reason=self.end_reason if self.is_settled else None,
            failure=self.failure if self.is_settled else None,
            recoveries=tuple(self.recoveries),
            is_queued=self.state == VideoState.QUEUED
            or (self.state == VideoState.SLEEPING and self.started_at is None),
        )

    @property
    def seconds_done(self) -> float:
        """Playback time of what is in the log."""
        return self.seconds_of(self.progress.done)

    def seconds_of(self, num_blocks: int) -> float:
        """Playback time of the first blocks."""
        num_frames, fps = self.progress.num_frames, self.request.fps
        made_s = self.progress.start_s(num_blocks)
        return made_s if num_frames is None else min(made_s, num_frames / fps)

    def move(self, state: VideoState) -> None:
        """Enter a state; anything but a step of the table above is our bug."""
        assert state in NEXT_STATES[self.state], f"video {self.id}: {self.state} -> {state}"
        self.state = state

    def finish(self, outcome: EndReason | HiarError) -> bool:
        """How it ended, once what was made before is read. The first outcome counts, until it is told: a video that
        cannot be stored has failed. Returns whether this one does.
        """
        if self.has_outcome and (self.is_settled or not isinstance(outcome, StorageFailed)):
            return False
        if isinstance(outcome, EndReason):
            self.end_reason = outcome
        else:
            self.end_reason, self.failure = None, outcome
        return True
