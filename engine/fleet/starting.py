"""How far the start of a group is, for the log, for health checks and for metrics. Knows no process."""

import logging
import time
from collections.abc import Callable

from engine.messages import StartPhase, StartProgress

logger = logging.getLogger(__name__)

LOG_EVERY_S = 2.0
"""A line for each worker at most this often; a start that is over before leaves none."""
GB = 1e9
UNITS = {StartPhase.MEASURING: "forwards", StartPhase.CAPTURING: "forwards", StartPhase.WARMING: "blocks"}


class StartReport:
    """What the workers of a group said of their start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives monotonic seconds."""
        self._clock = clock
        self._latest: dict[int, StartProgress] = {}
        self._logged_at: dict[int, float] = {}

    def note(self, rank: int, progress: StartProgress) -> None:
        """Take what a worker said."""
        now = self._clock()
        self._latest[rank] = progress
        if now - self._logged_at.setdefault(rank, now) >= LOG_EVERY_S:
            self._logged_at[rank] = now
            logger.info("worker %d: %s", rank, told(progress))

    def clear(self) -> None:
        """The group serves, or is gone."""
        self._latest.clear()
        self._logged_at.clear()

    @property
    def sentence(self) -> str | None:
        """How far all workers are; None if nothing is known."""
        if not self._latest:
            return None
        return "; ".join(f"worker {rank}: {told(progress)}" for rank, progress in sorted(self._latest.items()))


def told(progress: StartProgress) -> str:
    """For people: 'reading hiar.pt 5.7 of 11.4 GB', 'capturing 12 of 24 forwards'."""
    if progress.phase is StartPhase.READING:
        return f"reading {progress.what} {progress.done / GB:.1f} of {progress.total / GB:.1f} GB"
    return f"{progress.phase} {progress.done} of {progress.total} {UNITS[progress.phase]}"
