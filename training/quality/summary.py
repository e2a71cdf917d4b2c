"""From the measures of many videos to the numbers of a report: means over prompts, spreads over seeds.

A video is cut into five equal segments, as in the paper's drift metric (spec section 7.3). The drift of a quantity is
what a straight line through its five values changes from the first segment to the last. How the paper weighs its
measures against each other is not published; ours is the plain mean that ``drift`` names.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from training.quality.checker import Attribute
from training.quality.measures import DYNAMIC_FLOW_PX, Measures
from training.quality.record import Video

NUM_SEGMENTS = 5


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean over seeds of means over prompts."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds; None for one seed."""

    def __str__(self) -> str:
        around = "" if self.deviation is None else f" ± {self.deviation:.3f}"
        return f"{self.mean:.3f}{around}"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One way of making videos at one length."""

    num_videos: int
    accuracy: Spread
    perfect: Spread
    by_attribute: dict[str, float | None]
    """None where no prompt says it."""
    flow_px: Spread
    dynamic: Spread
    drift: Spread
    changes: dict[str, Spread]
    segments: dict[str, list[Spread]]
    flicker: Spread | None


CURVES: dict[str, Callable[[Measures], float]] = {
    "accuracy": lambda measures: measures.accuracy,
    "saturation": lambda measures: measures.saturation,
    "sharpness": lambda measures: measures.sharpness,
    "brightness": lambda measures: measures.brightness,
    "background error": lambda measures: measures.background_error,
    "thing share": lambda measures: measures.thing_share,
    "flow": lambda measures: measures.flow_px,
}
"""What is followed over the segments of a video."""
RELATIVE = frozenset({"sharpness"})
"""Changes of these are divided by their mean; the others are shares already, or pixels."""
LEAST_MEAN = 1e-6
DRIFTING = ("accuracy", "saturation", "sharpness", "brightness")
"""Whose changes, taken without their sign, the drift is the mean of."""


def summarise(videos: Sequence[Video], num_windows: int) -> Summary:
    """Summarise the first ``num_windows`` windows of each video; they are a multiple of five."""
    assert videos and num_windows % NUM_SEGMENTS == 0, f"{len(videos)} videos, {num_windows} windows"
    cut = [replace(video, windows=video.windows[:num_windows]) for video in videos]
    flows = [_mean(video, CURVES["flow"]) for video in cut]
    return Summary(
        num_videos=len(cut),
        accuracy=over_seeds(cut, [_mean(video, CURVES["accuracy"]) for video in cut]),
        perfect=over_seeds(cut, [_mean(video, lambda measures: float(measures.perfect)) for video in cut]),
        by_attribute={str(attribute): _attribute(cut, attribute) for attribute in Attribute},
        flow_px=over_seeds(cut, flows),
        dynamic=over_seeds(cut, [float(flow > DYNAMIC_FLOW_PX) for flow in flows]),
        drift=over_seeds(cut, [_drift(video) for video in cut]),
        changes={name: over_seeds(cut, [_change(video, name) for video in cut]) for name in CURVES},
        segments={name: _over_time(cut, name) for name in CURVES},
        flicker=_flicker(cut),
    )


def over_seeds(videos: Sequence[Video], values: Sequence[float]) -> Spread:
    """The mean of the videos' values over prompts, for each seed; then mean and deviation of those."""
    by_repeat: dict[int, list[float]] = {}
    for video, value in zip(videos, values, strict=True):
        by_repeat.setdefault(video.repeat, []).append(value)
    means = [statistics.fmean(one_seed) for one_seed in by_repeat.values()]
    deviation = statistics.stdev(means) if len(means) > 1 else None
    return Spread(mean=statistics.fmean(means), deviation=deviation)


def _over_time(videos: Sequence[Video], name: str) -> list[Spread]:
    segments = [_segments(video, name) for video in videos]
    return [over_seeds(videos, values) for values in zip(*segments, strict=True)]


def _segments(video: Video, name: str) -> list[float]:
    """The mean of a curve in each segment."""
    values = [CURVES[name](measures) for measures in video.windows]
    length = len(values) // NUM_SEGMENTS
    return [statistics.fmean(values[n * length : (n + 1) * length]) for n in range(NUM_SEGMENTS)]


def _mean(video: Video, value: Callable[[Measures], float]) -> float:
    return statistics.fmean(value(measures) for measures in video.windows)


def _change(video: Video, name: str) -> float:
    """What the line through the segments changes from the first to the last."""
    segments = _segments(video, name)
    slope = statistics.linear_regression(range(NUM_SEGMENTS), segments).slope
    change = slope * (NUM_SEGMENTS - 1)
    return change / max(statistics.fmean(segments), LEAST_MEAN) if name in RELATIVE else change


def _drift(video: Video) -> float:
    return statistics.fmean(abs(_change(video, name)) for name in DRIFTING)


def _attribute(videos: Sequence[Video], attribute: Attribute) -> float | None:
    hits = [hit for video in videos for window in video.windows for hit in window.hits[attribute]]
    return statistics.fmean(hits) if hits else None


def _flicker(videos: Sequence[Video]) -> Spread | None:
    moving = [video for video in videos if video.flicker is not None]
    flickers = [video.flicker for video in videos if video.flicker is not None]
    return over_seeds(moving, flickers) if moving else None
