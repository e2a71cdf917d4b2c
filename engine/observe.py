"""What the engine tells of itself while it runs, for metrics: facts as they happen, each told once.

An observer is called on the engine's event loop and must return at once. Counts and times in what it is told are
increments, so a worker that is lost takes nothing back. Knows no metric and nobody who reads one.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.errors import HiarError
from engine.messages import StartProgress
from engine.request import EndReason, EngineFacts, Fragment, Pace
from engine.trace import Rests, Span


class LossReason(StrEnum):
    """How a worker was lost."""

    DIED = "died"
    """Its process ended, or its node is gone."""
    HUNG = "hung"
    """It had work and made no progress in time."""


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """How long the parts of a worker group's start took."""

    measure_s: float
    """Start of the processes; in the first group also what measuring the passes took."""
    load_s: float
    """Until every worker had its part of the model."""
    warm_up_s: float
    restart_s: float
    """What replacing the workers is expected to take: all but the measuring."""


class Observer:
    """Ignores everything; override what matters."""

    # --- videos ---

    def video_started(self, queued_s: float) -> None:
        """A video got its place, ``queued_s`` after it was asked for."""

    def video_made(self, video_s: float, took_s: float) -> None:
        """A video that got its place ended: it made so much video, from then to its last block; at least one."""

    def video_recovered(self, *, exact: bool) -> None:
        """A video goes on with new workers, as if nothing had happened or merely resembling that."""

    def video_ended(self, outcome: EndReason | HiarError, video_s: float, lived_s: float) -> None:
        """A video ended: so much of it was made, so long after it was asked for. Told once of every video."""

    def block_made(self, fragment: Fragment, interval_s: float | None, lead_s: float | None) -> None:
        """A block left the chain, ``interval_s`` after the one before; None for the first.

        ``lead_s``: so long before the leading reader of a realtime video must play it, negative if late; None before
        playback and without such a reader.
        """

    def block_taken(self, pace: Pace) -> None:
        """A reader took a block."""

    def stood_still(self, seconds: float) -> None:
        """The picture of a realtime video stood still, waiting for a block, for so long since that was last told."""

    def prompt_asked(self, *, remembered: bool) -> None:
        """An embedding was needed."""

    def prompt_followed(self, latency_s: float) -> None:
        """The reader took the first block that follows a changed prompt, ``latency_s`` after the change was asked."""

    # --- workers ---

    def worker_starts(self, rank: int, progress: StartProgress) -> None:
        """How far the start of a worker is."""

    def group_serves(self, facts: EngineFacts, times: StartTimes) -> None:
        """A worker group is ready."""

    def group_lost(self, rank: int, reason: LossReason) -> None:
        """The group is lost, by the fault of worker ``rank``."""

    def group_replaced(self, took_s: float) -> None:
        """A new group serves, ``took_s`` after the loss of the last one."""

    def worker_worked(self, rank: int, spans: tuple[Span, ...], rests: Rests) -> None:
        """What a worker did, and how long it did nothing, since it was last heard of. Passes of one forward come
        together and share their times."""
