"""When a video may have its next block, and which video goes first: pure functions of progress and time.

A realtime video runs at most ``lead_target_s`` ahead of its viewer; every video stops while too much encoded video
waits for its reader. Among those that may go, realtime videos come first, by playback deadline; then ``fast`` ones, by
priority (design, law 9). Knows no queue and no clock.
"""

from dataclasses import dataclass
from math import inf

from engine.config import EngineConfig, RolloutConfig
from engine.law.schedule import blocks_for_frames, frames_before_block, frames_in_block
from engine.request import Pace, VideoRequest


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
    """Blocks handed to the reader, or waiting for it."""
    taken: int = 0
    """Blocks the reader has taken."""
    playing_since: float | None = None
    """When playback began, later by each moment that it stood still since."""
    last_done_at: float | None = None
    num_stalls: int = 0
    """Playback deadlines that were missed."""
    stalled_s: float = 0.0

    @property
    def num_frames(self) -> int | None:
        """Frames of the whole video, at least one; None when endless."""
        seconds = self.request.seconds
        return None if seconds is None else max(1, round(seconds * self.request.fps))

    @property
    def num_blocks(self) -> int | None:
        """Blocks of the whole video; None when endless."""
        return None if self.num_frames is None else blocks_for_frames(self.rollout, self.num_frames)

    def shown_frames(self, block: int) -> int:
        """Frames of a block that are shown: all, but for the last block of a finite video."""
        full = frames_in_block(self.rollout, block)
        if self.num_frames is None:
            return full
        return min(full, self.num_frames - frames_before_block(self.rollout, block))

    def start_s(self, block: int) -> float:
        """Playback time of a block's first frame."""
        return frames_before_block(self.rollout, block) / self.request.fps

    @property
    def all_issued(self) -> bool:
        """Whether every block of a finite video has its ticket."""
        return self.num_blocks is not None and self.issued >= self.num_blocks

    @property
    def all_done(self) -> bool:
        """Whether every block of a finite video is made."""
        return self.num_blocks is not None and self.done >= self.num_blocks

    def take(self, now: float) -> float | None:
        """The reader took a block. Playback that ran dry waited for it; one that has not begun may begin.

        A player begins when it holds a full block's length, as ours does: the first block is shorter than the others.
        Returns how long before its playback deadline the block came, negative if late; None before playback.
        """
        lead_s = None
        if self.playing_since is not None:
            lead_s = self.playing_since + self.start_s(self.taken) - now
            late_s = max(0.0, -lead_s)
            self.playing_since += late_s
            self.stalled_s += late_s
            self.num_stalls += late_s > 0
        self.taken += 1
        full_block_s = frames_in_block(self.rollout, 1) / self.request.fps
        if self.playing_since is None and self.start_s(self.taken) >= full_block_s:
            self.playing_since = now
        return lead_s

    @property
    def num_inflight(self) -> int:
        """Blocks in the chain."""
        return self.issued - self.returned


AT_ONCE = -inf
"""A moment that has passed, whatever the time."""


def ready_at(progress: Progress, config: EngineConfig) -> float | None:
    """The moment from which the next block may be issued; None means not before something happens to the video."""
    if progress.all_issued:
        return None
    if progress.issued < progress.done:
        return AT_ONCE  # its reader has this block already; the chain has to catch up
    waiting_s = progress.start_s(progress.done) - progress.start_s(progress.taken)
    if waiting_s >= config.backlog_limit_s:
        return None
    if progress.request.pace == Pace.FAST:
        return AT_ONCE
    ahead_s = progress.start_s(progress.issued) - config.lead_target_s
    if progress.playing_since is not None:
        return progress.playing_since + ahead_s
    return AT_ONCE if ahead_s <= 0 else None


def urgency(progress: Progress) -> tuple[bool, int, float]:
    """Sort key: the smallest goes first. Videos of pace ``fast`` take what is left, the higher priority first.

    Among realtime videos the earlier deadline alone decides: admission lets in only as many as all can be in time, and
    no priority makes another viewer's picture stand still.
    """
    start = progress.opened_at if progress.playing_since is None else progress.playing_since
    due_at = start + progress.start_s(progress.issued)
    if progress.request.pace == Pace.FAST:
        return True, -progress.request.priority, due_at
    return False, 0, due_at


def realtime_factor(progress: Progress, now: float) -> float | None:
    """Seconds of video made per second since the video opened; None before the first block."""
    if progress.done == 0 or progress.last_done_at is None:
        return None
    end = progress.last_done_at if progress.all_issued else now
    return progress.start_s(progress.done) / max(end - progress.opened_at, 1e-9)
