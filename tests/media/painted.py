"""Reading the frame numbers that a rehearsed decoder painted, out of a finished video."""

import numpy as np

from engine.stage.rehearsal import NUM_BARS
from tests.media.mp4_reading import decode

MID_GREY = (16 + 235) / 2


def frame_numbers(mp4: bytes) -> list[int]:
    """The number each frame shows, in playback order.

    ``mp4`` is an init segment and fragments; boxes that players skip may lie between them.
    """
    return [number_in(picture.planes) for picture in decode(mp4)]


def frame_times(mp4: bytes) -> list[float]:
    """When each frame is played, in seconds."""
    return [float(picture.time_s) for picture in decode(mp4)]


def number_in(planes: np.ndarray) -> int:
    """The number one picture shows, from its I420 planes [height * 3 / 2, width]."""
    luma = planes[: planes.shape[0] * 2 // 3]
    bars = np.array_split(luma, NUM_BARS, axis=1)
    return sum(1 << bit for bit, bar in enumerate(reversed(bars)) if bar.mean() > MID_GREY)
