"""What is behind the things of a video: which background it is, and its colours as they are in these frames.

Knows the world's backgrounds and nothing of shapes. The colours are fitted anew to every stretch of frames, because a
video of a model may drift away from the colours it was trained on.

Letters: T frames, H and W height and width in pixels.
"""

import math

import numpy as np
from numpy.typing import NDArray

from training.render import BACKGROUNDS
from training.world import Background

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

NEAR_RGB = 48.0
"""Largest distance in RGB of a background's pixel from the world's colour for its row."""
LEAST_SHARE = 0.35
"""Share of pixels that must be near for a background to be recognised."""
STRETCH_FRAMES = 16
LOOKS = 8
"""Frames of a video that tell its background."""
SMALLEST_ROW_SHARE = 0.1


def recognise_background(frames_THW3: Pixels) -> Background | None:
    """The background most pixels are near to; None if too few are near to any."""
    some = _some(frames_THW3)
    shares = {background: float(_near(some, background).mean()) for background in Background}
    best = max(shares, key=lambda background: shares[background])
    return best if shares[best] >= LEAST_SHARE else None


def background_error(frames_THW3: Pixels) -> float:
    """Distance in RGB of a typical pixel from the background of the world that it is nearest to."""
    some = _some(frames_THW3)
    return min(math.sqrt(np.median(_away(some, background))) for background in Background)


def background_rows(frames_THW3: Pixels, background: Background) -> Floats:
    """The colour of each row in each frame [T, H, 3]: straight lines through what is near the background."""
    stretches = [frames_THW3[t : t + STRETCH_FRAMES] for t in range(0, len(frames_THW3), STRETCH_FRAMES)]
    rows = [np.repeat(_fit(stretch, background)[None], len(stretch), axis=0) for stretch in stretches]
    return np.concatenate(rows)


def nominal_rows(background: Background, height_px: int) -> Floats:
    """The world's own colour of each row [H, 3]."""
    top, bottom = (np.asarray(rgb, np.float32) for rgb in BACKGROUNDS[background])
    depth = ((np.arange(height_px, dtype=np.float32) + 0.5) / height_px)[:, None]
    rows: Floats = top + depth * (bottom - top)
    return rows


def _some(frames_THW3: Pixels) -> Pixels:
    """A few frames, every other column."""
    return frames_THW3[:: max(1, len(frames_THW3) // LOOKS), :, ::2]


def _near(frames_THW3: Pixels, background: Background) -> NDArray[np.bool_]:
    """Which pixels [T, H, W] are near the background's colours."""
    near: NDArray[np.bool_] = _away(frames_THW3, background) < NEAR_RGB**2
    return near


def _away(frames_THW3: Pixels, background: Background) -> Floats:
    """Squared distance in RGB of each pixel from the background's colour for its row [T, H, W]."""
    away = frames_THW3.astype(np.float32) - nominal_rows(background, frames_THW3.shape[1])[:, None]
    return squared_length(away)


def squared_length(vectors: Floats) -> Floats:
    """Of the last axis, which has three entries: several times faster than a sum over so short an axis."""
    squares: Floats = vectors[..., 0] ** 2 + vectors[..., 1] ** 2 + vectors[..., 2] ** 2
    return squares


def _fit(frames_THW3: Pixels, background: Background) -> Floats:
    """A straight line down the picture for each colour channel [H, 3], through the mean of each row's near pixels."""
    nominal = nominal_rows(background, frames_THW3.shape[1])
    near_THW = _near(frames_THW3, background)
    counts_H = near_THW.sum(axis=(0, 2))
    enough = counts_H > SMALLEST_ROW_SHARE * near_THW.shape[0] * near_THW.shape[2]
    if enough.sum() < 2:
        return nominal
    means_H3 = np.einsum("thwc,thw->hc", frames_THW3.astype(np.float32), near_THW)[enough] / counts_H[enough, None]
    depth = np.linspace(-1, 1, len(nominal))
    line = np.polynomial.polynomial.polyfit(depth[enough], means_H3, 1)
    rows: Floats = (line[0] + depth[:, None] * line[1]).astype(np.float32)
    return rows
