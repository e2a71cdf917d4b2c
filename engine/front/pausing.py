"""Paused videos: who holds pages for how long, who sleeps, and who was paused for too long. Pure; times are given.

A paused video gets no more blocks; those under way are made. It keeps its pages and its place for ``pause_hold_s``, so
that going on costs nothing. Then it sleeps: a close ticket frees them and it stays in its log. A video that has no
pages when it is paused, or loses them, sleeps at once. Resuming one that sleeps queues it again, behind those who wait,
and it is opened from its log as a lost one is (``engine.front.recovery``). One that nobody resumes ends after
``pause_limit_s``.
"""

from collections import deque

from engine.engine_config import EngineConfig
from engine.errors import Conflict, VideoFailed
from engine.front.dispatch import Dispatch
from engine.front.endings import Endings
from engine.front.milestones import Milestones
from engine.front.queue import Queue
from engine.front.story import Paused, Resumed
from engine.front.video import Video, VideoState
from engine.request import EndReason


class Due:
    """Paused videos, in the order of the moment at which something becomes of them."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._paused: deque[tuple[float, Video]] = deque()
        """With the moment of the pause; some are over."""

    def add(self, video: Video, now: float) -> None:
        """A video was paused now."""
        self._paused.append((now, video))

    def take(self, now: float) -> list[Video]:
        """Those whose moment has come."""
        due = []
        while self._paused and (self._is_over(0) or self._paused[0][0] + self._after_s <= now):
            is_over = self._is_over(0)
            _, video = self._paused.popleft()
            if not is_over:
                due.append(video)
        return due

    @property
    def next_at(self) -> float | None:
        """When the next one's moment comes; call it behind ``take``."""
        return self._paused[0][0] + self._after_s if self._paused else None

    def _is_over(self, index: int) -> bool:
        paused_at, video = self._paused[index]
        return video.has_outcome or video.progress.paused_at != paused_at


class Pauses:
    """Pauses videos, lets them sleep and wakes them."""

    def __init__(
        self, config: EngineConfig, dispatch: Dispatch, endings: Endings, milestones: Milestones, queue: Queue
    ) -> None:
        self._dispatch, self._endings, self._milestones, self._queue = dispatch, endings, milestones, queue
        self._holding, self._waiting = Due(config.pause_hold_s), Due(config.pause_limit_s)

    def pause(self, video: Video, now: float) -> None:
        """Begin no more blocks of a video. Nothing happens if it is paused. Raises ``Conflict`` if it ends."""
        _require_going_on(video, "paused")
        if video.progress.is_paused:
            return
        self._milestones.watched(video, now)
        video.progress.pause(now)
        _tell(video, is_paused=True)
        self._waiting.add(video, now)
        if video.state == VideoState.RUNNING:
            self._holding.add(video, now)
            self._dispatch.note(video, now)
        elif video.state != VideoState.CLOSING:  # that one falls asleep already
            self.lay_down(video, now)
        self._endings.wake(video)

    def resume(self, video: Video, now: float) -> None:
        """Let a video go on. Nothing happens if it is not paused. Raises ``Conflict`` if it ends."""
        _require_going_on(video, "resumed")
        if not video.progress.is_paused:
            return
        cursors = video.readers if video.keeper is None else [*video.readers, video.keeper]
        video.progress.resume(cursors, now)
        _tell(video, is_paused=False)
        if video.state == VideoState.SLEEPING:
            self._line_up(video, now)
        self._dispatch.note(video, now)
        self._endings.wake(video)

    def lay_down(self, video: Video, now: float) -> None:
        """A paused video that has no pages any more, or one that was resumed before they were free."""
        video.closing = video.chain = None
        self._queue.drop(video)
        if video.started_at is not None and not video.log.can_open(video.progress.done):
            error = VideoFailed("too little is known of the video to go on after its pause")
            self._endings.give_up(video, error, now)
            return
        self._endings.move(video, VideoState.SLEEPING, now)
        if not video.progress.is_paused:
            self._line_up(video, now)

    def act(self, now: float) -> None:
        """Do what time has brought."""
        for video in self._waiting.take(now):
            self._endings.stop(video, EndReason.PAUSE_LIMIT, now)
        for video in self._holding.take(now):
            if video.state == VideoState.RUNNING:
                self._endings.move(video, VideoState.CLOSING, now)
                self._dispatch.close_behind_blocks(video, None)

    @property
    def next_at(self) -> float | None:
        """When time alone changes something; call it behind ``act``."""
        moments = [due.next_at for due in (self._holding, self._waiting)]
        return min((moment for moment in moments if moment is not None), default=None)

    def _line_up(self, video: Video, now: float) -> None:
        self._endings.move(video, VideoState.QUEUED, now)
        self._queue.add(video)
        if video.log.is_prepared:
            self._queue.prepared(video)


def _tell(video: Video, *, is_paused: bool) -> None:
    video.story.tell(Paused() if is_paused else Resumed())
    if video.kept is not None:
        video.kept.paused(is_paused)


def _require_going_on(video: Video, what: str) -> None:
    is_ending = video.state == VideoState.CLOSING and not video.is_falling_asleep
    if video.has_outcome or is_ending:
        raise Conflict(f"video {video.id} cannot be {what}: it has {'no more blocks' if is_ending else 'ended'}", "id")
