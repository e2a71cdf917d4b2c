"""What readers mean to their video: whom playback is paced for, when its picture stands still, and how long it lives
without any (design, laws 9 and 11).

A reader may begin anywhere in what is kept, or one lead ahead of the newest block. Pure; times are given.
"""

import itertools
from heapq import heappop, heappush

from engine.engine_config import EngineConfig
from engine.errors import BlockGone, BlockTooEarly
from engine.front.milestones import Milestones
from engine.front.pacing import Cursor, leading
from engine.front.video import Alone, Video
from engine.request import EndReason


def start_reading(video: Video, from_block: int | None, config: EngineConfig) -> Cursor:
    """A cursor that begins at a block; None is the newest one.

    Raises:
        BlockGone: it is not kept any more, or the video ends before it.
        BlockTooEarly: it is more than a lead ahead of the newest block.
    """
    log, progress = video.log, video.progress
    at = max(log.first_block, log.next_block - 1) if from_block is None else from_block
    if at < log.first_block:
        raise BlockGone(f"block {at} is no longer kept; the earliest is {log.first_block}", "from")
    end = log.next_block if video.has_outcome else progress.num_blocks
    if end is not None and at > end:
        raise BlockGone(f"the video has blocks 0 to {end - 1}; there will be no block {at}", "from")
    early_s = progress.start_s(at) - progress.start_s(log.next_block) - config.lead_target_s
    if early_s > 0:
        message = f"block {at} is more than {config.lead_target_s:g} s ahead of block {log.next_block}, the next"
        raise BlockTooEarly(message, early_s)
    return Cursor(first_block=at, next_block=at)


class Readers:
    """What comes of readers that join, read and leave."""

    def __init__(self, config: EngineConfig, milestones: Milestones) -> None:
        self._config, self._milestones = config, milestones
        self._alone: list[tuple[float, int, Video]] = []
        """A heap of videos that nobody reads, by the moment at which they end; some got a reader since."""
        self._entries = itertools.count()

    def joined(self, video: Video, cursor: Cursor) -> None:
        """A reader came."""
        video.readers.append(cursor)
        video.alone = None
        self._follow(video)

    def taken(self, video: Video, cursor: Cursor, now: float) -> None:
        """A reader took its next block."""
        video.progress.take(cursor, now)
        self._milestones.taken(video, now)
        self._follow(video)

    def left(self, video: Video, cursor: Cursor, reason: EndReason, now: float) -> bool:
        """A reader is gone. Returns whether the video ends with it."""
        if cursor not in video.readers:
            return False
        self._milestones.watched(video, now)
        video.readers.remove(cursor)
        self._follow(video)
        if video.readers or video.linger_s is None or video.has_outcome:
            return False
        if video.linger_s > 0:
            video.alone = Alone(now + video.linger_s, reason)
            heappush(self._alone, (video.alone.until, next(self._entries), video))
        return video.linger_s == 0

    def made(self, video: Video, now: float) -> None:
        """A block is in the log."""
        if video.keeper is not None:
            video.progress.take(video.keeper, now)
        self._follow(video)

    def overdue(self, now: float) -> list[Video]:
        """Videos that nobody came back to in time."""
        overdue = []
        while self._alone and (_is_past(self._alone[0]) or self._alone[0][0] <= now):
            entry = heappop(self._alone)
            if not _is_past(entry):
                overdue.append(entry[2])
        return overdue

    @property
    def next_overdue_at(self) -> float | None:
        """When the next one ends; call it behind ``overdue``."""
        return self._alone[0][0] if self._alone else None

    def _follow(self, video: Video) -> None:
        video.progress.leader = leading(video.progress, video.readers, video.keeper, self._config)


def _is_past(entry: tuple[float, int, Video]) -> bool:
    until, _, video = entry
    return video.has_outcome or video.alone is None or video.alone.until != until
