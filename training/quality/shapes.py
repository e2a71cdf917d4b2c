"""Which of the world's shapes a mask shows, how large it is and how it is turned.

The mask is brought to one area and one place and compared with masks of all shapes at all angles. Knows no colours
and no time. Angles are clockwise in radians; 0 is upright.
"""

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import coverage
from training.world import REACH, Shape

Floats = NDArray[np.float32]

FOLDS = {Shape.SQUARE: 4, Shape.TRIANGLE: 3, Shape.STAR: 5, Shape.CROSS: 4}
"""Turns by a full turn over this number show the same picture; round shapes are not named."""
PATCH_PX = 56
PATCH_SIDE_PX = 24.0
"""In a patch every mask has the area of a square with this side."""
ANGLE_STEP_RAD = math.radians(6)
AREA_SAMPLES_PX = 256


def match(mask: Floats, x_px: float, y_px: float) -> dict[Shape, float]:
    """How alike a mask [H, W] around a centre is to each shape at its best angle: intersection over union, 0 to 1."""
    patch = _to_patch(mask, x_px, y_px).ravel()
    shapes, templates = _templates()
    common = np.minimum(templates, patch).sum(axis=1)
    alike = common / (templates.sum(axis=1) + patch.sum() - common)
    return {shape: float(alike[shapes == index].max()) for index, shape in enumerate(Shape)}


def radius_of(shape: Shape, area_px: float) -> float:
    """Radius in pixels of a shape that covers an area."""
    return math.sqrt(area_px / unit_area(shape))


def turned(mask: Floats, x_px: float, y_px: float, num_folds: int) -> float:
    """A mask's angle as the phase of its moment of ``num_folds`` folds; it repeats every turn / ``num_folds``."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    offsets = (x + 0.5 - x_px) + 1j * (y + 0.5 - y_px)
    far = np.abs(offsets) + 1e-6
    moment = (mask * far**2 * (offsets / far) ** num_folds).sum()
    return float(np.angle(moment)) / num_folds


@cache
def unit_area(shape: Shape) -> float:
    """Area of a shape of radius 1."""
    axis = (np.arange(AREA_SAMPLES_PX, dtype=np.float32) + 0.5) - AREA_SAMPLES_PX / 2
    radius_px = AREA_SAMPLES_PX / 2 / REACH - 1
    return float(coverage(shape, axis[None, :], axis[:, None], radius_px, 0.0).sum()) / radius_px**2


@cache
def _templates() -> tuple[NDArray[np.int64], Floats]:
    """The index of each template's shape, and the templates [N, patch pixels]."""
    axis = (np.arange(PATCH_PX, dtype=np.float32) + 0.5) - PATCH_PX / 2
    indices, patches = [], []
    for index, shape in enumerate(Shape):
        radius_px = radius_of(shape, PATCH_SIDE_PX**2)
        folds = FOLDS.get(shape)
        angles = np.arange(0, math.tau / folds, ANGLE_STEP_RAD) if folds else (0.0,)
        for angle_rad in angles:
            indices.append(index)
            patches.append(coverage(shape, axis[None, :], axis[:, None], radius_px, float(angle_rad)).ravel())
    return np.asarray(indices), np.asarray(patches, np.float32)


def _to_patch(mask: Floats, x_px: float, y_px: float) -> Floats:
    scale = PATCH_SIDE_PX / math.sqrt(max(float(mask.sum()), 1.0))
    # OpenCV puts the middle of the first pixel at 0, we at 0.5
    shift_x, shift_y = PATCH_PX / 2 - 0.5 - scale * (x_px - 0.5), PATCH_PX / 2 - 0.5 - scale * (y_px - 0.5)
    place = np.array([[scale, 0, shift_x], [0, scale, shift_y]], np.float32)
    return np.asarray(cv2.warpAffine(mask, place, (PATCH_PX, PATCH_PX), flags=cv2.INTER_LINEAR), np.float32)
