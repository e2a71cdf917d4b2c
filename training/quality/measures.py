"""What is measured of a stretch of video, without knowing who made it.

Saturation and sharpness are those of the paper's drift metric (spec section 7.3); its learned measures need weights
that are not at hand. Motion is dense optical flow (DIS, by OpenCV), of which the fastest 5 % of the pixels count, as
in VBench's dynamic degree: most of a picture of this world stands still. It counts near pixels that change visibly:
in plain areas optical flow makes much of changes by one or two grey levels that nobody sees.

Letters: T frames, H and W height and width in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from engine.config import RolloutConfig
from engine.law.schedule import frames_before_block
from training.quality.backdrop import Pixels, background_error
from training.quality.checker import Attribute, Score, compare, read
from training.world import Scene

FAST_SHARE = 0.05
FLOW_EVERY_FRAMES = 7
"""Has no divisor in common with the frames of a block, so that seams count as often as they come."""
VISIBLE_CHANGE, NEAR_PX = 12, 4
"""Flow counts so near to a pixel that changes by so many grey levels from one frame to the next."""
DYNAMIC_FLOW_PX = 0.15
"""Optical flow, in pixels a frame at 128 pixels, above which a video is dynamic: in the world all that travels, spins
or pulses is, and what stays still or only changes colour is not."""
LEAST_CHANGE = 0.05
"""Mean difference of neighbouring frames, in grey levels, below which a video stands still and cannot flicker."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of one stretch of one video."""

    accuracy: float
    """Share of what the prompt says that the checker finds."""
    perfect: bool
    """Whether it finds all of it."""
    hits: dict[str, list[bool]]
    """By attribute."""
    saturation: float
    """Mean S of HSV, 0 to 1."""
    sharpness: float
    """Variance of the Laplacian of the grey picture."""
    brightness: float
    """Mean V of HSV, 0 to 1."""
    background_error: float
    """Distance in RGB of a typical pixel from the nearest background of the world."""
    thing_share: float
    """Share of the picture that its things cover, as far as they are found."""
    flow_px: float
    """Optical flow of the fastest pixels, in pixels a frame."""


def measure(scene: Scene, frames_THW3: Pixels) -> Measures:
    """Measure a stretch of a video that should show ``scene``: uint8 RGB [T, H, W, 3]."""
    reading = read(frames_THW3)
    found: Score = compare(scene, reading)
    saturation, brightness, sharpness = (
        float(np.mean(values)) for values in zip(*map(_look, frames_THW3), strict=True)
    )
    return Measures(
        accuracy=found.accuracy,
        perfect=found.is_perfect,
        hits={str(attribute): found.of(attribute) for attribute in Attribute},
        saturation=saturation,
        sharpness=sharpness,
        brightness=brightness,
        background_error=background_error(frames_THW3),
        thing_share=reading.thing_share,
        flow_px=flow_px(frames_THW3),
    )


def flow_px(frames_THW3: Pixels) -> float:
    """Mean optical flow of the fastest pixels, in pixels a frame."""
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THW3]
    fastest = []
    for t in range(0, len(greys) - 1, FLOW_EVERY_FRAMES):
        flow = np.asarray(finder.calc(greys[t], greys[t + 1], np.zeros((*greys[t].shape, 2), np.float32)))
        speeds_HW = np.hypot(flow[..., 0], flow[..., 1]) * _near_change(greys[t], greys[t + 1])
        speeds = np.sort(speeds_HW, axis=None)
        fastest.append(float(speeds[-int(FAST_SHARE * speeds.size) :].mean()))
    return float(np.mean(fastest)) if fastest else 0.0


def _near_change(before_HW: Pixels, after_HW: Pixels) -> Pixels:
    """1 near pixels that change visibly, 0 elsewhere."""
    changes_HW = (cv2.absdiff(before_HW, after_HW) >= VISIBLE_CHANGE).astype(np.uint8)
    return cv2.dilate(changes_HW, np.ones((2 * NEAR_PX + 1, 2 * NEAR_PX + 1), np.uint8)).astype(np.uint8)


def flicker(frames_THW3: Pixels, rollout: RolloutConfig) -> float | None:
    """Mean change from the last frame of a block to the next block's first, over the mean change inside blocks.

    1 is a video without a seam. None when too little changes to tell, or the video has one block.
    """
    before = np.array([cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in pairwise(frames_THW3)])
    seams: Sequence[int] = [
        frame - 1
        for block in range(1, len(frames_THW3))
        if (frame := frames_before_block(rollout, block)) <= len(before)
    ]
    inside = np.delete(before, seams)
    if not seams or not inside.size or inside.mean() < LEAST_CHANGE:
        return None
    return float(before[seams].mean() / inside.mean())


def _look(frame_HW3: Pixels) -> tuple[float, float, float]:
    """Saturation, brightness and sharpness of one frame."""
    hsv = cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2HSV)
    grey = cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return float(hsv[..., 1].mean()) / 255, float(hsv[..., 2].mean()) / 255, sharpness
