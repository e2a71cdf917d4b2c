"""Tells what becomes of videos: their start, each block, stalls, their end, and when a prompt is seen. The observer is
told, and the video's story where that is for those who watch it.

Keeps nothing: what it needs is in the video. Knows no ticket and no worker.
"""

from engine.errors import HiarError, StorageFailed
from engine.front.log import InitSegment
from engine.front.pacing import realtime_factor
from engine.front.steps import Step
from engine.front.story import Ended, Made, Recovered, Started
from engine.front.video import Video
from engine.observe import Observer
from engine.request import EndReason, Fragment, Pace
from engine.trace import Phase, Span


class Milestones:
    """What is to be told of videos."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def started(self, video: Video, now: float) -> None:
        """A video left the queue."""
        video.started_at = now
        video.story.tell(Started())
        self._observer.video_started(now - video.queued_at)

    def made(self, video: Video, fragment: Fragment, now: float) -> None:
        """A block left the chain; the video's progress does not know of it yet."""
        progress = video.progress
        last, is_realtime = progress.last_done_at, video.request.pace == Pace.REALTIME
        lead_s = progress.lead_s(now) if is_realtime and progress.leader in video.readers else None
        is_first = last is None or progress.done == progress.excused_block
        self._observer.block_made(fragment, None if last is None or is_first else now - last, lead_s)

    def worked(self, video: Video, span: Span) -> None:
        """A worker did something for a video; what is told of with a block is kept until then."""
        block = span.block - video.progress.before
        if span.phase != Phase.DENOISE or video.started_at is None or block < video.num_told:
            return
        assert span.stage is not None, "a denoise pass is of a stage"
        began_s, took_s = span.began_s - video.started_at, span.ended_s - span.began_s
        video.steps.add(block, Step(span.stage, span.rank, began_s, took_s))

    def begun(self, video: Video, init_segment: InitSegment) -> None:
        """Its first workers have its encoder open."""
        if video.kept is not None:
            video.kept.begun(init_segment)

    def added(self, video: Video, fragment: Fragment, now: float) -> None:
        """The block is in the log, and the video's progress counts it."""
        if video.kept is not None:
            video.kept.added(fragment)
        self.stored(video, now)

    def stored(self, video: Video, now: float) -> None:
        """Perhaps there is more of it that may be told."""
        progress = video.progress
        while video.num_told < video.num_safe:
            block, video.num_told = video.num_told, video.num_told + 1
            seconds_done = video.seconds_of(video.num_told)
            lead_s, factor = progress.lead_s(now), realtime_factor(progress, now)
            video.story.tell(Made(block, seconds_done, lead_s, factor, video.steps.take(block)))
        outcome = video.failure or video.end_reason
        if outcome is None or video.is_settled:
            return
        if video.num_told == progress.done or isinstance(outcome, StorageFailed):
            video.is_settled = True
            video.story.tell(Ended(outcome, video.num_told, video.seconds_of(video.num_told)))

    def finished(self, video: Video, outcome: EndReason | HiarError, now: float) -> None:
        """It is decided how it ended."""
        if video.kept is not None:
            video.kept.ended(outcome)
        self.stored(video, now)

    def recovered(self, video: Video) -> None:
        """It goes on with new workers; its last recovery says how."""
        recovery = video.recoveries[-1]
        video.story.tell(Recovered(recovery.block, recovery.exact))
        if video.kept is not None:
            video.kept.recovered(recovery)
        self._observer.video_recovered(exact=recovery.exact)

    def woken(self, video: Video) -> None:
        """It goes on after it slept; its last recovery says how."""
        recovery = video.recoveries[-1]
        video.story.tell(Recovered(recovery.block, recovery.exact))

    def watched(self, video: Video, now: float) -> None:
        """Count how long the picture of a reader stood still until now, if it does."""
        if video.has_outcome or video.progress.leader not in video.readers:
            return
        stood_s = video.progress.count_stall(now)
        if stood_s > 0 and video.request.pace == Pace.REALTIME:
            self._observer.stood_still(stood_s)

    def taken(self, video: Video, now: float) -> None:
        """A reader took a block; the video's progress counts it already."""
        self._observer.block_taken(video.request.pace)
        changes = video.prompt_changes
        while changes and changes[0].block < video.progress.taken:
            self._observer.prompt_followed(now - changes.popleft().asked_at)

    def ended(self, video: Video, now: float) -> None:
        """Nothing more comes of a video."""
        video.prompt_changes.clear()
        progress = video.progress
        if video.started_at is not None and progress.last_done_at is not None:
            took_s = progress.last_done_at - video.started_at - progress.paused_s(progress.last_done_at)
            made_s = video.seconds_done - progress.start_s(video.num_restored)
            self._observer.video_made(made_s, max(0.0, took_s))
        outcome = video.failure or video.end_reason
        assert outcome is not None, f"video {video.id} ended without an outcome"
        self._observer.video_ended(outcome, video.seconds_done, now - progress.opened_at)
