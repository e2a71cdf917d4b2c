"""Writes down what the engine tells: the observer that fills the families. Knows no request and no exposition."""

from engine import (
    EndReason,
    EngineFacts,
    Fragment,
    HiarError,
    LossReason,
    Observer,
    Pace,
    Rests,
    Span,
    StartProgress,
    StartTimes,
)
from server.errors import finish_of, row_of
from server.metrics.families import Families
from server.metrics.words import Finish
from server.metrics.work import WorkRecord


class Recorder(Observer):
    """Give it to an engine when that is made."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._work: WorkRecord | None = None

    # --- videos ---

    def video_started(self, queued_s: float) -> None:
        """Count the wait."""
        self._families.videos.queue_time.observe(queued_s)

    def video_made(self, video_s: float, took_s: float) -> None:
        """Record how fast it was."""
        self._families.viewers.realtime_factor.observe(video_s / max(took_s, 1e-6))

    def video_recovered(self, *, exact: bool) -> None:
        """Count the way back."""
        self._families.videos.recovered.labels("exact" if exact else "approximate").inc()

    def video_ended(self, outcome: EndReason | HiarError, video_s: float, lived_s: float) -> None:
        """Count how it ended, and its failure."""
        videos = self._families.videos
        videos.finished.labels(finish_of(outcome)).inc()
        videos.duration.observe(lived_s)
        videos.video.observe(video_s)
        if isinstance(outcome, HiarError) and row_of(outcome).finish is Finish.ENGINE_ERROR:
            self._families.engine.errors.labels("video", row_of(outcome).code).inc()

    def block_made(self, fragment: Fragment, interval_s: float | None, lead_s: float | None) -> None:
        """Count block, frames, seconds and bytes; how early it came only where somebody watches in real time."""
        viewers = self._families.viewers
        viewers.blocks_generated.inc()
        viewers.frames_generated.inc(fragment.num_frames)
        viewers.video_generated.inc(fragment.duration_s)
        viewers.segment_bytes.observe(len(fragment.data))
        if interval_s is not None:
            viewers.block_interval.observe(interval_s)
        if lead_s is not None:
            viewers.lead.observe(lead_s)
            viewers.late.inc(lead_s < 0)

    def block_taken(self, pace: Pace) -> None:
        """Count the block."""
        self._families.viewers.blocks_delivered.labels(pace.value).inc()

    def stood_still(self, seconds: float) -> None:
        """Count the seconds."""
        self._families.viewers.stalled.inc(seconds)

    def prompt_asked(self, *, remembered: bool) -> None:
        """Count hit or miss."""
        stages = self._families.stages
        (stages.text_hits if remembered else stages.text_misses).inc()

    def prompt_followed(self, latency_s: float) -> None:
        """Count the wait."""
        self._families.viewers.prompt_update.observe(latency_s)

    # --- workers ---

    def worker_starts(self, rank: int, progress: StartProgress) -> None:
        """Show how far it is."""
        ratio = progress.done / max(progress.total, 1)
        self._families.workers.start_progress.labels(str(rank), progress.phase.value).set(ratio)

    def group_serves(self, facts: EngineFacts, times: StartTimes) -> None:
        """Make the children of the plan; say what is served."""
        self._work = WorkRecord(self._families, facts)
        engine = self._families.engine
        engine.load_duration.labels("measure").set(times.measure_s)
        engine.load_duration.labels("load").set(times.load_s)
        engine.load_duration.labels("warm_up").set(times.warm_up_s)
        engine.info.clear()
        engine.info.labels(facts.model, facts.attention, facts.decoder, facts.encoder).set(1)

    def group_lost(self, rank: int, reason: LossReason) -> None:
        """Count the loss, and whose fault it was; the next start begins anew."""
        self._families.engine.restarts.labels(reason.value).inc()
        self._families.workers.losses.labels(str(rank), reason.value).inc()
        self._families.workers.start_progress.clear()

    def group_replaced(self, took_s: float) -> None:
        """Count the wait."""
        self._families.engine.recovery.observe(took_s)

    def worker_worked(self, rank: int, spans: tuple[Span, ...], rests: Rests) -> None:
        """Add to the work of a worker."""
        assert self._work is not None, "a worker worked before its group served"
        self._work.add(rank, spans, rests)
