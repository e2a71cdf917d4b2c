"""What a tracked thing does: which of the world's laws of motion fits it, and in which direction.

Knows tracks and the world's laws, and no pixels. Lengths are in units of the picture, times in frames.

Letters: N sightings.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.world import DRIFTS, ORBITS, SPINS, TURNS, Motion

Values = NDArray[np.float64]


class Kind(StrEnum):
    """A law of motion without its direction."""

    STILL = "still"
    DRIFT = "drift"
    BOUNCE = "bounce"
    ORBIT = "orbit"
    SPIN = "spin"
    PULSE = "pulse"
    RECOLOUR = "recolour"


def kind_of(motion: Motion) -> Kind:
    """The law that a motion follows."""
    for kind, motions in ((Kind.DRIFT, DRIFTS), (Kind.ORBIT, ORBITS), (Kind.SPIN, SPINS)):
        if motion in motions:
            return kind
    return Kind(motion.value)


@dataclass(frozen=True, kw_only=True)
class Course:
    """What was measured of a thing in the frames in which it is whole."""

    frames_N: NDArray[np.int64]
    x_N: Values
    y_N: Values
    radius_N: Values
    angle_N: Values
    """In radians, by the turn of the shape; repeats every ``fold_rad``."""
    fold_rad: float | None
    """None for round shapes."""
    num_colours: int
    """Colours it has for a fair share of the time."""


STEP_FRAMES = 3
LEAST_SPEED = 0.003
"""Picture sides a frame below which a thing stays where it is; the slowest travels 0.0078."""
LEAST_SPIN_RAD = math.radians(0.7)
"""Turn a frame below which a thing does not spin; the slowest turns 1.4 degrees."""
LEAST_PULSE = 0.07
"""Spread of the radius over its mean above which a thing grows and shrinks; the world's own has 0.19."""
SAME_LINE_RATIO = 0.36
"""Speed across over speed along, below which a thing drifts; the flattest bounce has 0.58."""
ORBIT_SPREAD = 0.12
"""Spread of the distance to the middle over its mean, at most, of an orbit."""
LEAST_ORBIT = 0.1
LARGEST_SPEED = 0.08
"""Picture sides a frame above which a step is a re-entry at the other edge; the fastest travel 0.0273."""
FEWEST_STEPS = 4


def classify(course: Course) -> Motion | None:
    """The motion of a thing; None when too little was seen of it."""
    dx, dy = _steps(course, course.x_N), _steps(course, course.y_N)
    near = np.hypot(dx, dy) < LARGEST_SPEED
    dx, dy = dx[near], dy[near]
    if len(dx) < FEWEST_STEPS:
        return None
    if float(np.median(np.hypot(dx, dy))) >= LEAST_SPEED:
        return _travel(course, dx, dy)
    if course.num_colours > 1:
        return Motion.RECOLOUR
    if _spread(course.radius_N) > LEAST_PULSE:
        return Motion.PULSE
    return _spin(course) or Motion.STILL


def _travel(course: Course, dx: Values, dy: Values) -> Motion:
    """An orbit keeps its distance from the middle, a drift its axis and direction; anything else bounces."""
    orbit = _orbit(course, dx, dy)
    if orbit is not None:
        return orbit
    along, across = sorted((abs(float(np.median(dx))), abs(float(np.median(dy)))), reverse=True)
    unsteady = float(np.median(np.minimum(np.abs(dx), np.abs(dy))))
    if max(across, unsteady) > SAME_LINE_RATIO * max(along, LEAST_SPEED):
        return Motion.BOUNCE
    if abs(float(np.median(dx))) > abs(float(np.median(dy))):
        return Motion.DRIFT_RIGHT if np.median(dx) > 0 else Motion.DRIFT_LEFT
    return Motion.DRIFT_DOWN if np.median(dy) > 0 else Motion.DRIFT_UP


def _orbit(course: Course, dx: Values, dy: Values) -> Motion | None:
    """Round the middle at one distance, and turning its heading as fast as its place: a passing line does not."""
    x, y = course.x_N - 0.5, course.y_N - 0.5
    out = np.hypot(x, y)
    if out.mean() < LEAST_ORBIT or _spread(out) > ORBIT_SPREAD:
        return None
    around = float(np.median(_steps(course, np.arctan2(y, x), period=math.tau)))
    turns = np.sort(np.diff(np.unwrap(np.arctan2(dy, dx))))
    few = len(turns) // 6  # a bounce turns all at once
    if not 0.5 < float(turns[few : len(turns) - few].mean()) / (around or math.inf) < 2:
        return None
    return Motion.ORBIT_CLOCKWISE if around > 0 else Motion.ORBIT_COUNTERCLOCKWISE


def _spin(course: Course) -> Motion | None:
    if course.fold_rad is None:
        return None
    rate = float(np.median(_steps(course, course.angle_N, period=course.fold_rad)))
    if abs(rate) < LEAST_SPIN_RAD:
        return None
    return Motion.SPIN_CLOCKWISE if rate > 0 else Motion.SPIN_COUNTERCLOCKWISE


def _steps(course: Course, values_N: Values, period: float | None = None) -> Values:
    """Change a frame over every ``STEP_FRAMES`` neighbouring sightings without a gap."""
    unbroken = course.frames_N[STEP_FRAMES:] - course.frames_N[:-STEP_FRAMES] == STEP_FRAMES
    steps = (values_N[STEP_FRAMES:] - values_N[:-STEP_FRAMES])[unbroken]
    if period is not None:
        steps = (steps + period / 2) % period - period / 2
    rates: Values = steps / STEP_FRAMES
    return rates


def _spread(values_N: Values) -> float:
    return float(values_N.std() / values_N.mean())


def direction_of(motion: Motion | None) -> str | None:
    """The direction or sense a motion names: left, right, up, down, clockwise, counterclockwise, or nothing."""
    if motion in DRIFTS or motion in TURNS:
        return str(motion).split()[-1]
    return None
