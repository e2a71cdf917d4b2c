"""Pixels of a scene: every shape is a signed distance, its edge is blended over one pixel.

Knows nothing of how scenes are drawn. Distances are in radii of the shape, on a grid turned to the shape's own axes.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.world import REACH, REACHES, Background, Colour, Scene, Shape, Thing, ThingState, state

Floats = NDArray[np.floating[Any]]
Frames = NDArray[np.uint8]

COLOURS: dict[Colour, tuple[int, int, int]] = {
    Colour.RED: (220, 38, 48),
    Colour.ORANGE: (250, 135, 20),
    Colour.YELLOW: (250, 225, 60),
    Colour.GREEN: (45, 200, 80),
    Colour.BLUE: (40, 95, 235),
    Colour.PURPLE: (150, 60, 205),
    Colour.WHITE: (248, 248, 248),
}
"""RGB of each colour; all are far from each other and from every background."""
BACKGROUNDS: dict[Background, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    Background.NIGHT: ((14, 16, 38), (32, 36, 72)),
    Background.SKY: ((132, 178, 210), (172, 206, 224)),
    Background.SAND: ((204, 184, 146), (184, 158, 118)),
    Background.MEADOW: ((78, 102, 70), (56, 80, 54)),
    Background.STONE: ((132, 132, 136), (106, 106, 110)),
}
"""RGB at the top and at the bottom of each background."""

STAR_NOTCH = 0.52
RING_HOLE = 0.55
CROSS_ARM = 0.36


def render(scene: Scene, first_frame: int, num_frames: int, size_px: int = 128, fps: int = 16) -> Frames:
    """Frames ``first_frame`` to ``first_frame + num_frames - 1`` of a scene: uint8 RGB [T, H, W, 3]."""
    frames = np.repeat(_background(scene.background, size_px)[None], num_frames, axis=0)
    for index in range(num_frames):
        for thing, now in zip(scene.things, state(scene, (first_frame + index) / fps), strict=True):
            _draw(frames[index], thing, now)
    return frames


def coverage(shape: Shape, x_px: Floats, y_px: Floats, radius_px: float, angle_rad: float) -> Floats:
    """How much of each pixel a shape covers, 0 to 1; the pixels are given by their distance from its centre."""
    scale_x, scale_y = math.cos(angle_rad) / radius_px, math.sin(angle_rad) / radius_px
    x, y = x_px * scale_x + y_px * scale_y, y_px * scale_x - x_px * scale_y
    covered: Floats = np.clip(0.5 - radius_px * _DISTANCES[shape](x, y), 0, 1)
    return covered


def rgb_of(thing: Thing, now: ThingState) -> NDArray[np.float32]:
    """The thing's colour at a moment: RGB, 0 to 255."""
    colour = np.asarray(COLOURS[thing.colour], np.float32)
    if thing.colour_after is None:
        return colour
    return colour + now.colour_after_share * (np.asarray(COLOURS[thing.colour_after], np.float32) - colour)


@cache
def _background(background: Background, size_px: int) -> Frames:
    top, bottom = (np.asarray(rgb, np.float32) for rgb in BACKGROUNDS[background])
    depth = (np.arange(size_px, dtype=np.float32) + 0.5)[:, None] / size_px
    rows = np.rint(top + depth * (bottom - top)).astype(np.uint8)
    return np.repeat(rows[:, None], size_px, axis=1)


def _draw(frame: Frames, thing: Thing, now: ThingState) -> None:
    """Blend a thing into a frame [H, W, 3], touching only the pixels that it can reach."""
    size_px = frame.shape[0]
    x, y, radius_px = now.x * size_px, now.y * size_px, now.radius * size_px
    reach_px = radius_px * REACH + 1
    left, right = max(0, math.floor(x - reach_px)), min(size_px, math.ceil(x + reach_px))
    top, bottom = max(0, math.floor(y - reach_px)), min(size_px, math.ceil(y + reach_px))
    if left >= right or top >= bottom:
        return
    x_px = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - x)
    y_px = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    covered = coverage(thing.shape, x_px, y_px, radius_px, now.angle_rad)[..., None]
    behind = frame[top:bottom, left:right]
    behind[:] = np.rint(behind + covered * (rgb_of(thing, now) - behind))


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 1


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - REACHES[Shape.SQUARE]


def _triangle(x: Floats, y: Floats) -> Floats:
    """Upright and equilateral: the lower side and the two slopes, mirrored into one."""
    return np.maximum(y, np.abs(x) * math.sin(math.pi / 3) - y * 0.5) - REACHES[Shape.TRIANGLE] / 2


def _star(x: Floats, y: Floats) -> Floats:
    """Five points: the plane folded into one of ten equal wedges, each bounded by one straight edge."""
    wedge = math.pi / 5
    around = np.arctan2(np.abs(x), -y)
    folded = np.abs((around + wedge) % (2 * wedge) - wedge)
    out = np.hypot(x, y)
    edge_x, edge_y = STAR_NOTCH * math.cos(wedge) - REACHES[Shape.STAR], STAR_NOTCH * math.sin(wedge)
    length = math.hypot(edge_x, edge_y)
    return ((out * np.cos(folded) - REACHES[Shape.STAR]) * edge_y - out * np.sin(folded) * edge_x) / length


def _ring(x: Floats, y: Floats) -> Floats:
    off_middle: Floats = np.abs(np.hypot(x, y) - (1 + RING_HOLE) / 2)
    return off_middle - (1 - RING_HOLE) / 2


def _cross(x: Floats, y: Floats) -> Floats:
    distance: Floats = np.maximum(np.maximum(np.abs(x), np.abs(y)) - 1, np.minimum(np.abs(x), np.abs(y)) - CROSS_ARM)
    return distance


_DISTANCES: dict[Shape, Callable[[Floats, Floats], Floats]] = {
    Shape.CIRCLE: _circle,
    Shape.SQUARE: _square,
    Shape.TRIANGLE: _triangle,
    Shape.STAR: _star,
    Shape.RING: _ring,
    Shape.CROSS: _cross,
}
