"""What all viewers of a run saw, as few numbers. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hiar_client.bench.viewing import Viewing

PERCENTS = (50, 90, 99)
STEADY = frozenset({"reader", "changer", "leaver"})
"""Behaviours that read as it comes: when their fragments come says something about the server."""


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Of a number of seconds. All None where there is nothing to tell of."""

    n: int
    p50: float | None
    p90: float | None
    p99: float | None
    largest: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of a run."""

    took_s: float
    asked: int
    completed: int
    good: int
    """That came to their end and never stood still."""
    refused: dict[str, int]
    """By code: no video came."""
    failed: dict[str, int]
    """By code: some came."""
    ended: dict[str, int]
    """By reason: all others."""
    unfinished: int
    """When the run was stopped."""
    by_behaviour: dict[str, int]
    video_s: float
    good_a_s: float
    """Goodput: good videos a second of the run."""
    video_s_a_s: float
    """Seconds of video a second of the run."""
    stalled_videos: int
    stall_s: float
    """Together."""
    first_fragment_s: Quantiles
    gap_s: Quantiles
    each_stall_s: Quantiles
    resume_s: Quantiles
    change_s: Quantiles
    late_s: Quantiles
    """Of requests behind the time at which they were meant to be sent."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def summary_of(viewings: Sequence[Viewing], took_s: float) -> Summary:
    """Summarise a run that took so long."""
    ended = [viewing for viewing in viewings if viewing.end is not None]
    watched = [viewing for viewing in viewings if viewing.behaviour in STEADY]
    stalls = [[length_s for _, length_s in viewing.stalls()] for viewing in watched]
    good, video_s = sum(viewing.is_good for viewing in viewings), sum(viewing.video_s for viewing in viewings)
    return Summary(
        took_s=took_s,
        asked=len(viewings),
        completed=sum(viewing.end == "completed" for viewing in ended),
        good=good,
        refused=_count(viewing for viewing in ended if viewing.was_refused),
        failed=_count(viewing for viewing in ended if viewing.is_error and not viewing.was_refused),
        ended=_count(viewing for viewing in ended if not viewing.is_error and viewing.end != "completed"),
        unfinished=len(viewings) - len(ended),
        by_behaviour=dict(Counter(viewing.behaviour for viewing in viewings)),
        video_s=video_s,
        good_a_s=good / took_s if took_s else 0.0,
        video_s_a_s=video_s / took_s if took_s else 0.0,
        stalled_videos=sum(bool(of_one) for of_one in stalls),
        stall_s=sum(sum(of_one) for of_one in stalls),
        first_fragment_s=quantiles(viewing.first_after_s for viewing in viewings),
        gap_s=quantiles(gap_s for viewing in watched for gap_s in viewing.gaps_s),
        each_stall_s=quantiles(length_s for of_one in stalls for length_s in of_one),
        resume_s=quantiles(viewing.resumed_after_s for viewing in viewings),
        change_s=quantiles(viewing.change_after_s for viewing in viewings),
        late_s=quantiles(viewing.late_s for viewing in viewings),
    )


def quantiles(values: Iterable[float | None]) -> Quantiles:
    """Of those that are known: each is one of the values, the smallest that so many per cent do not exceed."""
    known = sorted(value for value in values if value is not None)
    p50, p90, p99 = (quantile(known, percent) for percent in PERCENTS)
    return Quantiles(n=len(known), p50=p50, p90=p90, p99=p99, largest=known[-1] if known else None)


def quantile(ordered: Sequence[float], percent: int) -> float | None:
    """The smallest value that ``percent`` of all do not exceed; None of nothing."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


def _count(viewings: Iterable[Viewing]) -> dict[str, int]:
    return dict(Counter(str(viewing.end) for viewing in viewings).most_common())
