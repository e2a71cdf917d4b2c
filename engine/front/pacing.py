"""When a video may have its next block, and which video goes first: pure functions of progress and time.

A realtime video runs at most ``lead_target_s`` ahead of its leading live reader: of those no further than that behind
the newest block, the one whose picture would stand still first. Every video stops while too much of it waits for the
reader that is furthest. Among videos that may go, watched realtime ones come first, by playback deadline; then the
others, by priority (design, law 9). Knows no queue and no clock.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf

from engine.config import RolloutConfig
from engine.engine_config import EngineConfig
from engine.law.schedule import (
    block_at_frame,
    block_with_frame,
    blocks_for_frames,
    frames_before_block,
    frames_in_block,
)
from engine.request import EndReason, Pace, VideoRequest


@dataclass(eq=False)
class Cursor:
    """A reader's place in a log, and the clock of whoever plays what it reads. Seconds of the injected clock."""

    first_block: int
    next_block: int
    """The one it has not taken."""
    playing_since: float | None = None
    """When block 0 would have been played, later by each moment that the picture stood still; None before playback."""


@dataclass(kw_only=True)
class Progress:
    """How far one video has come. Counts are blocks, times are seconds of the injected clock."""

    request: VideoRequest
    rollout: RolloutConfig
    opened_at: float
    issued: int = 0
    """The next block to send down the chain. Behind ``done`` while a lost video is made again."""
    returned: int = 0
    """The block after the last one that left the chain."""
    done: int = 0
    """Blocks in the log."""
    awaited: int | None = None
    """A block that was finished alone, until its latents are back as context: no other may go before."""
    taken: int = 0
    """The first block that no reader has taken."""
    leader: Cursor | None = None
    """The reader that playback is paced for; None while nobody reads."""
    last_done_at: float | None = None
    num_stalls: int = 0
    """Playback deadlines of the leading reader that were missed."""
    stalled_s: float = 0.0
    """How long its picture stood still, as far as that is counted."""
    counted_until: float = -inf
    stalled_block: int = -1
    """The last block that was waited for beyond its deadline."""
    paused_at: float | None = None
    """None while it is not paused."""
    past_pauses_s: float = 0.0
    """How long it was paused in all, before that."""
    excused_block: int = -1
    """The first block after a pause: who waits for it waits for no fault of ours."""

    @property
    def origin_frame(self) -> int:
        """The first frame that it shows, counted from where the first video began that it continues."""
        continues = self.request.continues
        return 0 if continues is None else continues.first_frame

    @property
    def before(self) -> int:
        """Blocks before block 0, which has this number for workers: those of what the video continues.

        They have negative numbers here. They are made again and not shown.
        """
        return block_with_frame(self.rollout, self.origin_frame)

    @property
    def num_frames(self) -> int | None:
        """Frames of the whole video, at least one; None when endless."""
        seconds = self.request.seconds
        return None if seconds is None else max(1, round(seconds * self.request.fps))

    @property
    def num_blocks(self) -> int | None:
        """Blocks of the whole video; None when endless."""
        if self.num_frames is None:
            return None
        return blocks_for_frames(self.rollout, self.origin_frame + self.num_frames) - self.before

    def shown_frames(self, block: int) -> int:
        """Frames of a block that are shown: all, but for the last block of a finite video and the first of one that
        goes on in the middle of a block.
        """
        begin, end = self.start_frame(block), self.start_frame(block + 1)
        return (end if self.num_frames is None else min(end, self.num_frames)) - begin

    def skipped_frames(self, block: int) -> int:
        """Frames of a block that what the video continues has shown."""
        return max(0, self.origin_frame - frames_before_block(self.rollout, self.before + block)) if block == 0 else 0

    def start_frame(self, block: int) -> int:
        """The first frame of a block that is shown; 0 for blocks before the video."""
        return max(0, frames_before_block(self.rollout, self.before + block) - self.origin_frame)

    def start_s(self, block: int) -> float:
        """Playback time of that frame."""
        return self.start_frame(block) / self.request.fps

    def block_at(self, at_s: float) -> int:
        """The first whole block at or after a playback time: where a timed prompt takes effect."""
        frame = self.origin_frame + round(at_s * self.request.fps)
        return block_at_frame(self.rollout, frame) - self.before

    @property
    def full_block_s(self) -> float:
        """Playback time of any block but the first, which is shorter: what a player holds before it begins."""
        return frames_in_block(self.rollout, 1) / self.request.fps

    @property
    def all_issued(self) -> bool:
        """Whether every block of a finite video has its ticket."""
        return self.num_blocks is not None and self.issued >= self.num_blocks

    @property
    def all_done(self) -> bool:
        """Whether every block of a finite video is made."""
        return self.num_blocks is not None and self.done >= self.num_blocks

    @property
    def whole_reason(self) -> EndReason:
        """What it ends with when all of it is made."""
        return EndReason.LIMIT if self.request.is_cut else EndReason.COMPLETED

    @property
    def num_inflight(self) -> int:
        """Blocks in the chain."""
        return self.issued - self.returned

    @property
    def is_paused(self) -> bool:
        """Whether no block may be issued until it is resumed."""
        return self.paused_at is not None

    def paused_s(self, now: float) -> float:
        """How long it was paused in all."""
        return self.past_pauses_s + (0.0 if self.paused_at is None else now - self.paused_at)

    def pause(self, now: float) -> None:
        """Stop the clock."""
        assert self.paused_at is None, "it is paused already"
        self.paused_at = now

    def resume(self, cursors: Iterable[Cursor], now: float) -> None:
        """Let it run again. A picture that ran dry in the pause is due now, not in the past."""
        self.past_pauses_s, self.paused_at = self.paused_s(now), None
        self.excused_block = self.done
        for cursor in cursors:
            self._wait_for_next(cursor, now)

    def take(self, cursor: Cursor, now: float) -> None:
        """A reader took its next block. Playback that ran dry waited for it; one that has not begun may begin.

        A player begins when it holds a full block's length, as ours does.
        """
        self._wait_for_next(cursor, now)
        cursor.next_block += 1
        self.taken = max(self.taken, cursor.next_block)
        held_s = self.start_s(cursor.next_block) - self.start_s(cursor.first_block)
        if cursor.playing_since is None and held_s >= self.full_block_s:
            cursor.playing_since = now - self.start_s(cursor.first_block)

    def _wait_for_next(self, cursor: Cursor, now: float) -> None:
        """If its picture stood still for the next block, it did so until now."""
        if cursor.playing_since is not None:
            cursor.playing_since = max(cursor.playing_since, now - self.start_s(cursor.next_block))

    def lead_s(self, now: float) -> float | None:
        """How long until the leading reader must play the next block, negative if late; None before playback.

        Nothing of a paused video is late.
        """
        if self.leader is None or self.leader.playing_since is None:
            return None
        lead_s = self.leader.playing_since + self.start_s(self.done) - now
        return max(0.0, lead_s) if self.is_paused else lead_s

    def uncounted_stall_s(self, now: float) -> float:
        """How long the leading reader's picture has stood still, waiting for the next block, since that was counted."""
        lead_s = self.lead_s(now)
        if self.is_paused or self.done == self.excused_block:
            return 0.0
        if self.leader is None or lead_s is None or self.leader.next_block < self.done or self.all_done:
            return 0.0
        return max(0.0, now - max(self.counted_until, now + lead_s))

    def count_stall(self, now: float) -> float:
        """Count that. Returns it."""
        stood_s = self.uncounted_stall_s(now)
        if stood_s > 0:
            self.num_stalls += self.stalled_block != self.done
            self.stalled_block = self.done
            self.stalled_s, self.counted_until = self.stalled_s + stood_s, now
        return stood_s


def leading(
    progress: Progress, readers: Collection[Cursor], keeper: Cursor | None, config: EngineConfig
) -> Cursor | None:
    """The reader to pace for: of those close behind the newest block the one that plays first.

    Without such a reader it is ``keeper``, for a video that needs none, or else the furthest.
    """
    newest_s = progress.start_s(progress.done)
    live = [one for one in readers if newest_s - progress.start_s(one.next_block) <= config.lead_target_s]
    if live:
        return min(live, key=lambda reader: inf if reader.playing_since is None else reader.playing_since)
    return keeper or max(readers, key=lambda reader: reader.next_block, default=None)


AT_ONCE = -inf
"""A moment that has passed, whatever the time."""


def ready_at(progress: Progress, config: EngineConfig) -> float | None:
    """The moment from which the next block may be issued; None means not before something happens to the video."""
    if progress.all_issued or progress.awaited is not None or progress.is_paused:
        return None
    if progress.issued < progress.done:
        return AT_ONCE  # the log has this block already; the chain has to catch up
    waiting_s = progress.start_s(progress.done) - progress.start_s(progress.taken)
    if waiting_s >= config.backlog_limit_s:
        return None
    if progress.request.pace == Pace.FAST:
        return AT_ONCE
    leader = progress.leader
    if leader is None or leader.playing_since is None:
        begins_at = progress.taken if leader is None else leader.first_block
        ahead_s = progress.start_s(progress.issued) - progress.start_s(begins_at)
        return AT_ONCE if ahead_s <= max(config.lead_target_s, progress.full_block_s) else None
    return leader.playing_since + progress.start_s(progress.issued) - config.lead_target_s


def urgency(progress: Progress) -> tuple[bool, int, float]:
    """Sort key: the smallest goes first. Videos that nobody waits for take what is left: those of pace ``fast``, the
    higher priority first, and realtime ones that nobody reads now.

    Among watched realtime videos the earlier deadline alone decides: admission lets in only as many as all can be in
    time, and no priority makes another viewer's picture stand still.
    """
    leader = progress.leader
    start = progress.opened_at if leader is None or leader.playing_since is None else leader.playing_since
    due_at = start + progress.start_s(progress.issued)
    if progress.request.pace == Pace.FAST or progress.issued < 0:  # what is made again before it can wait
        return True, -progress.request.priority, due_at
    return leader is None, 0, due_at


def realtime_factor(progress: Progress, now: float) -> float | None:
    """Seconds of video made per second since the video opened, pauses apart; None before the first block."""
    if progress.done == 0 or progress.last_done_at is None:
        return None
    end = progress.last_done_at if progress.all_issued else now
    return progress.start_s(progress.done) / max(end - progress.opened_at - progress.paused_s(end), 1e-9)
