"""Tells the observer what becomes of videos: their start, each block, and when a changed prompt is seen.

Keeps nothing: what it needs is in the video. Knows no ticket and no worker.
"""

from engine.front.pacing import Progress
from engine.front.video import Video
from engine.observe import Observer
from engine.request import Fragment


class Milestones:
    """What is to be told of running videos."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def started(self, video: Video, now: float) -> None:
        """A video left the queue."""
        video.started_at = now
        self._observer.video_started(now - video.progress.opened_at)

    def made(self, progress: Progress, fragment: Fragment, now: float) -> None:
        """A block left the chain; ``progress`` does not know of its time yet."""
        last = progress.last_done_at
        self._observer.block_made(fragment, None if last is None else now - last)

    def taken(self, video: Video, lead_s: float | None, now: float) -> None:
        """The reader took a block, ``lead_s`` before it was due; the video's progress counts it already."""
        self._observer.block_taken(video.request.pace, lead_s)
        changes = video.prompt_changes
        while changes and changes[0].block < video.progress.taken:
            self._observer.prompt_followed(now - changes.popleft().asked_at)

    def ended(self, video: Video) -> None:
        """Nothing more comes of a video."""
        video.prompt_changes.clear()
        progress = video.progress
        if video.started_at is not None and progress.last_done_at is not None:
            self._observer.video_made(progress.start_s(progress.done), progress.last_done_at - video.started_at)
