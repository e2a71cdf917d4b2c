"""What one viewer saw, as times, and what follows from them: stalls, gaps, whether it could be enjoyed. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

STALL_S = 0.05
"""A shorter wait of the picture is not seen."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A fragment."""

    at_s: float
    """Since the beginning of the run, as all times here."""
    duration_s: float
    block: int


@dataclass(kw_only=True)
class Viewing:
    """One viewer's video."""

    number: int
    behaviour: str
    asked_at_s: float
    late_s: float | None = None
    """How much later the request was sent than it was meant to be, in an open loop: who makes the load was too slow."""
    arrivals: list[Arrival] = field(default_factory=list)
    cut_at_s: float | None = None
    """When a resumer lost its connection."""
    changed_at_s: float | None = None
    """When a changer asked for another prompt."""
    changed_block: int | None = None
    """The first block that follows it."""
    ended_at_s: float | None = None
    """None: the run ended before it did."""
    end: str | None = None
    """``completed``, another reason of the server's, ``left``, or the code of an error."""
    is_error: bool = False

    @property
    def was_refused(self) -> bool:
        """Whether there was no video at all."""
        return self.is_error and not self.arrivals

    @property
    def first_after_s(self) -> float | None:
        """From the request to the first fragment."""
        return self.arrivals[0].at_s - self.asked_at_s if self.arrivals else None

    @property
    def video_s(self) -> float:
        """Length of what came."""
        return sum(arrival.duration_s for arrival in self.arrivals)

    @property
    def resumed_after_s(self) -> float | None:
        """From the cut to the next fragment, where there was both."""
        if self.cut_at_s is None:
            return None
        return next((arrival.at_s - self.cut_at_s for arrival in self.arrivals if arrival.at_s > self.cut_at_s), None)

    @property
    def change_after_s(self) -> float | None:
        """From asking for a prompt to the arrival of the first block that follows it."""
        if self.changed_at_s is None or self.changed_block is None:
            return None
        came = (arrival.at_s for arrival in self.arrivals if arrival.block >= self.changed_block)
        return max(0.0, next(came) - self.changed_at_s) if self._has_changed else None

    @property
    def _has_changed(self) -> bool:
        assert self.changed_block is not None
        return bool(self.arrivals) and self.arrivals[-1].block >= self.changed_block

    @property
    def gaps_s(self) -> list[float]:
        """Between fragments, of who reads as they come; the gap of a cut is another thing."""
        cut = self.cut_at_s
        times = [arrival.at_s for arrival in self.arrivals]
        return [later - before for before, later in pairwise(times) if cut is None or not before <= cut < later]

    def stalls(self) -> Iterator[tuple[float, float]]:
        """Yield (when, how long) the picture stood still, if it played from the first fragment on."""
        due_s: float | None = None
        for arrival in self.arrivals:
            if due_s is not None and arrival.at_s - due_s > STALL_S:
                yield due_s, arrival.at_s - due_s
                due_s = arrival.at_s
            due_s = (arrival.at_s if due_s is None else due_s) + arrival.duration_s

    @property
    def is_good(self) -> bool:
        """Whether it came to its end and never stood still."""
        return self.end == "completed" and not any(self.stalls())
