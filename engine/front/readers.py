"""What readers mean to their video: whom playback is paced for, when its picture stands still, and how long it lives
without any (design, laws 9 and 11).

A reader may begin anywhere in what is kept, or one lead ahead of the newest block. Those who poll (HLS) cannot be told
apart and never say that they leave: together they are one reader, at the furthest block that one of them took, which
leaves when none has asked for a while. Pure; times are given.
"""

import itertools
from heapq import heappop, heappush
from typing import assert_never

from engine.engine_config import EngineConfig
from engine.errors import BlockGone, BlockTooEarly
from engine.front.events import BlockTaken, Joined, Left, OfReader, Polled
from engine.front.milestones import Milestones
from engine.front.pacing import Cursor, leading
from engine.front.video import Alone, Polling, Video
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
        self._polled: list[tuple[float, int, Video]] = []
        """A heap of videos that are polled, one entry each, by the earliest moment at which that may be over."""
        self._entries = itertools.count()

    def attend(self, event: OfReader, now: float) -> None:
        """A reader did something."""
        video = event.video
        match event:
            case Joined(_, cursor):
                self.joined(video, cursor)
            case BlockTaken(_, cursor):
                self.taken(video, cursor, now)
            case Polled(_, block, hold_s):
                self.polled(video, block, now + hold_s, now)
            case Left(_, cursor, reason):
                self.left(video, cursor, reason, now)
            case _:
                assert_never(event)

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

    def polled(self, video: Video, block: int | None, until: float, now: float) -> None:
        """Somebody asked, perhaps for a block that was handed out, and counts as a reader until then."""
        if video.has_outcome:
            return
        if video.polling is None:
            newest = max(video.log.first_block, video.log.next_block - 1)
            video.polling = Polling(Cursor(first_block=newest, next_block=newest), until, until - now)
            heappush(self._polled, (until, next(self._entries), video))
            self.joined(video, video.polling.cursor)
        video.polling.until = max(video.polling.until, until)
        cursor = video.polling.cursor
        if block is not None and block > cursor.next_block:  # playback began there, or went on from there
            cursor.first_block, cursor.next_block, cursor.playing_since = block, block, None
        if block == cursor.next_block:
            self.taken(video, cursor, now)

    def silent(self, now: float) -> list[Video]:
        """Videos that nobody polls any more: that reader has left them."""
        silent = []
        while self._polled and self._polled[0][0] <= now:
            _, entry, video = heappop(self._polled)
            polling = video.polling
            assert polling is not None, f"video {video.id} is not polled"
            if video.progress.is_paused:  # who watches may have stopped asking as well, and asks again later
                polling.until = max(polling.until, now + polling.hold_s)
            if polling.until > now and not video.has_outcome:
                heappush(self._polled, (polling.until, entry, video))
                continue
            video.polling = None
            self.left(video, polling.cursor, EndReason.CLIENT_DISCONNECT, now)
            silent.append(video)
        return silent

    def left(self, video: Video, cursor: Cursor, reason: EndReason, now: float) -> None:
        """A reader is gone; ``overdue`` tells of the video when nobody came back to it."""
        if cursor not in video.readers:
            return
        self._milestones.watched(video, now)
        video.readers.remove(cursor)
        self._follow(video)
        if not video.readers and video.linger_s is not None and not video.has_outcome:
            video.alone = Alone(now + video.linger_s, reason)
            heappush(self._alone, (video.alone.until, next(self._entries), video))

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
    def next_at(self) -> float | None:
        """When time alone changes something; call it behind ``silent`` and ``overdue``."""
        moments = [heap[0][0] for heap in (self._alone, self._polled) if heap]
        return min(moments, default=None)

    def _follow(self, video: Video) -> None:
        video.progress.leader = leading(video.progress, video.readers, video.keeper, self._config)


def _is_past(entry: tuple[float, int, Video]) -> bool:
    until, _, video = entry
    return video.has_outcome or video.alone is None or video.alone.until != until
