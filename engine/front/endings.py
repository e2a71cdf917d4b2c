"""How videos end: at a block boundary or at once, and what is left of them. Pure; commands go where the desk's go.

A video has *finished* when its outcome is decided, and is *removed* when its pages are free as well; between the two
it is closing. An ended one keeps its log, on the shelf, until it is forgotten.
"""

from dataclasses import dataclass, field

from engine.errors import HiarError
from engine.front.dispatch import Dispatch
from engine.front.events import Command, Wake
from engine.front.keeping import Shelf
from engine.front.milestones import Milestones
from engine.front.queue import Queue
from engine.front.video import Video, VideoState
from engine.request import EndReason


@dataclass(frozen=True)
class Register:
    """All videos that the desk knows."""

    by_id: dict[str, Video] = field(default_factory=dict)
    """Until they are forgotten and hold nothing."""
    live: dict[Video, None] = field(default_factory=dict)
    """Those of them that have not ended, in the order in which they came."""

    def add(self, video: Video) -> None:
        """A video came."""
        self.by_id[video.id] = video
        self.live[video] = None


class Endings:
    """Ends videos and takes them from the register."""

    def __init__(
        self,
        register: Register,
        dispatch: Dispatch,
        milestones: Milestones,
        queue: Queue,
        shelf: Shelf,
        out: list[Command],
    ) -> None:
        self._register, self._dispatch, self._milestones = register, dispatch, milestones
        self._queue, self._shelf, self._out = queue, shelf, out

    def at_boundary(self, video: Video, reason: EndReason, before_start: EndReason | HiarError, now: float) -> None:
        """End a video behind the blocks that have tickets; one that has not begun ends with ``before_start``."""
        match video.state:
            case VideoState.QUEUED | VideoState.SLEEPING:
                self.give_up(video, before_start if video.started_at is None else reason, now)
            case VideoState.RUNNING:
                self.move(video, VideoState.CLOSING, now)
                self._dispatch.close_behind_blocks(video, reason)
            case VideoState.RECOVERING:
                self.give_up(video, reason, now)
            case VideoState.CLOSING:
                _end_behind(video, reason)
            case VideoState.ENDED:
                pass

    def stop(self, video: Video, reason: EndReason, now: float) -> None:
        """End a video at once."""
        if video.state != VideoState.ENDED:
            self.break_off(video, reason, now)

    def break_off(self, video: Video, outcome: EndReason | HiarError, now: float) -> None:
        """Decide how a video ended and free its pages without making what is under way."""
        self._finish(video, outcome, now)
        match video.state:
            case VideoState.QUEUED | VideoState.RECOVERING | VideoState.SLEEPING:
                self._remove(video, now)
            case VideoState.RUNNING:
                self._dispatch.cancel(video)
                self.move(video, VideoState.CLOSING, now)
                self._dispatch.close_behind_blocks(video, EndReason.CANCELLED)
            case VideoState.CLOSING:
                self._dispatch.cancel(video)
                _end_behind(video, EndReason.CANCELLED)
            case VideoState.ENDED:
                pass

    def fail(self, video: Video, error: HiarError, now: float) -> None:
        """End a video at once with an error, unless its end is told."""
        if not video.is_settled:
            self.break_off(video, error, now)

    def give_up(self, video: Video, outcome: EndReason | HiarError, now: float) -> None:
        """End a video that holds no pages any more."""
        self._finish(video, outcome, now)
        self._remove(video, now)

    def forget(self, video: Video) -> None:
        """Its id means nothing any more. One whose pages are not free yet is dropped when they are."""
        if video.is_forgotten:
            return
        video.is_forgotten = True
        if video.state == VideoState.ENDED:
            self._shelf.drop(video)
            del self._register.by_id[video.id]

    def wake(self, video: Video) -> None:
        """Let all know who wait for the video."""
        self._out.append(Wake(video))

    def move(self, video: Video, state: VideoState, now: float) -> None:
        """Enter a state, and let all know who wait for the video."""
        video.move(state)
        self._dispatch.note(video, now)
        self._out.append(Wake(video))

    def _finish(self, video: Video, outcome: EndReason | HiarError, now: float) -> None:
        self._milestones.watched(video, now)
        if video.finish(outcome):
            self._milestones.finished(video, outcome, now)
        self._dispatch.note(video, now)
        self._out.append(Wake(video))

    def _remove(self, video: Video, now: float) -> None:
        """It holds nothing any more but its log, for readers."""
        del self._register.live[video]
        video.ended_at = now
        self._milestones.ended(video, now)
        self._queue.drop(video)
        self.move(video, VideoState.ENDED, now)
        video.log.close()
        video.drop_pixels()
        if video.is_forgotten:
            del self._register.by_id[video.id]
        else:
            self._shelf.put(video)


def _end_behind(video: Video, reason: EndReason) -> None:
    """A close ticket that was to let the video sleep ends it instead."""
    assert video.closing is not None
    if video.closing.reason is None:
        video.closing.reason = reason
