"""The things in each frame of a video, and which of them are one thing seen over time.

A thing is a connected region that differs from the background; its mask is the share of the thing's colour in each
pixel, so a blurred edge moves neither its area nor its centre. Knows backgrounds as colours of rows, and no shapes.

Letters: T frames, H and W height and width in pixels.
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from training.quality.backdrop import Floats, Pixels, squared_length

APART_RGB = 60.0
"""Least distance in RGB of a thing from its background."""
LEAST_AREA_SHARE = 60 / 128**2
"""Smaller regions are noise."""
MARGIN_PX = 3
SAME_RGB = 60.0
CORE_SHARE = 0.5
"""The colour is read where the distance to the edge is at least this share of the largest."""
MOVED_COST_PX = 30.0
RECOLOURED_COST_RGB = 100.0
SAME_COST = 2.5
"""Cost above which two sightings are of two things."""
FEWEST_WHOLE = 8
FEWEST_SIGHTINGS = 0.12
"""Share of frames in which a thing must be seen."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One thing in one frame."""

    frame: int
    x_px: float
    y_px: float
    """Centre of the mask, from the upper left corner of the picture."""
    area_px: float
    rgb: tuple[float, float, float]
    is_whole: bool
    """Whether it is away from the edge of the picture."""
    mask: Floats
    """Share of the thing in each pixel around it [h, w]."""
    left_px: int
    top_px: int
    """Where the mask lies in the picture."""

    def distance_px(self, other: "Sighting") -> float:
        """Between the centres."""
        return math.hypot(self.x_px - other.x_px, self.y_px - other.y_px)


@dataclass
class Track:
    """One thing over time."""

    sightings: list[Sighting] = field(default_factory=list)

    @property
    def clearest(self) -> list[Sighting]:
        """The sightings away from the edge; if there is none, those of which most is to be seen."""
        whole = [seen for seen in self.sightings if seen.is_whole]
        return whole or sorted(self.sightings, key=lambda seen: -seen.area_px)[:FEWEST_WHOLE]

    @property
    def course(self) -> list[Sighting]:
        """The sightings that tell the motion: those away from the edge, unless they are few."""
        whole = [seen for seen in self.sightings if seen.is_whole]
        return whole if len(whole) >= FEWEST_WHOLE else self.sightings

    def goes_on_as(self, later: "Track") -> bool:
        """Whether another track begins after this one ends, in the colour in which it ended."""
        last, first = self.sightings[-1], later.sightings[0]
        return last.frame < first.frame and math.dist(last.rgb, first.rgb) < SAME_RGB

    def cost(self, seen: Sighting) -> float:
        """How unlikely a sighting is this track's next."""
        last = self.sightings[-1]
        recoloured = math.dist(last.rgb, seen.rgb) / RECOLOURED_COST_RGB
        crossed = not (last.is_whole and seen.is_whole)
        return recoloured + (0.0 if crossed else last.distance_px(seen) / MOVED_COST_PX)


def track(frames_THW3: Pixels, rows_TH3: Floats) -> list[Track]:
    """Everything that is seen in a fair share of the frames, most seen first."""
    tracks: list[Track] = []
    for t, frame in enumerate(frames_THW3):
        _continue_tracks(tracks, find_things(frame, rows_TH3[t], t))
    lasting = [found for found in _joined(tracks) if len(found.sightings) >= FEWEST_SIGHTINGS * len(frames_THW3)]
    return sorted(lasting, key=lambda found: -len(found.sightings))


def _joined(tracks: list[Track]) -> list[Track]:
    """Tracks that were lost, behind another thing for one, and found again: no frame in common and one colour."""
    whole: list[Track] = []
    for found in sorted(tracks, key=lambda found: found.sightings[0].frame):
        earlier = next((other for other in whole if other.goes_on_as(found)), None)
        if earlier is None:
            whole.append(found)
        else:
            earlier.sightings += found.sightings
    return whole


def find_things(frame_HW3: Pixels, rows_H3: Floats, index: int) -> list[Sighting]:
    """The things of one frame."""
    away_HW3 = frame_HW3.astype(np.float32) - rows_H3[:, None]
    apart = (squared_length(away_HW3) > APART_RGB**2).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(apart, connectivity=8)
    least_area = LEAST_AREA_SHARE * apart.size
    found = [n for n in range(1, count) if boxes[n, cv2.CC_STAT_AREA] >= least_area]
    things = [_look(away_HW3, rows_H3, labels == n, boxes[n], index) for n in found]
    return [thing for thing in things if not any(_is_piece(thing, other) for other in things)]


def _is_piece(thing: Sighting, other: Sighting) -> bool:
    """Whether the edge of the picture cut this off something larger: the points of a star that leaves, for one."""
    smaller = (thing.area_px, thing.x_px) < (other.area_px, other.x_px)
    return smaller and not (thing.is_whole or other.is_whole) and math.dist(thing.rgb, other.rgb) < SAME_RGB


def _look(
    away_HW3: Floats, rows_H3: Floats, region_HW: NDArray[np.bool_], box: NDArray[np.int32], index: int
) -> Sighting:
    height, width = region_HW.shape
    left, top = max(0, int(box[0]) - MARGIN_PX), max(0, int(box[1]) - MARGIN_PX)
    right, bottom = min(width, int(box[0] + box[2]) + MARGIN_PX), min(height, int(box[1] + box[3]) + MARGIN_PX)
    region, away = region_HW[top:bottom, left:right], away_HW3[top:bottom, left:right]
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    core = depth >= CORE_SHARE * depth.max()
    difference = np.median(away[core], axis=0)
    behind = rows_H3[top:bottom][np.nonzero(core)[0]].mean(axis=0)
    mask = _mask(away, difference, region)
    area = float(mask.sum())
    rows, columns = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    touches = box[0] <= 1 or box[1] <= 1 or box[0] + box[2] >= width - 1 or box[1] + box[3] >= height - 1
    red, green, blue = (float(value) for value in difference + behind)
    return Sighting(
        frame=index,
        x_px=float((mask.sum(axis=0) * columns).sum()) / area,
        y_px=float((mask.sum(axis=1) * rows).sum()) / area,
        area_px=area,
        rgb=(red, green, blue),
        is_whole=not touches,
        mask=mask,
        left_px=left,
        top_px=top,
    )


def _mask(away_HW3: Floats, difference_3: Floats, region_HW: NDArray[np.bool_]) -> Floats:
    """The share of the thing's colour in each pixel of the region and its rim, 0 to 1."""
    share = away_HW3 @ difference_3 / float(difference_3 @ difference_3)
    rim = cv2.dilate(region_HW.astype(np.uint8), np.ones((2 * MARGIN_PX - 1, 2 * MARGIN_PX - 1), np.uint8))
    mask: Floats = np.clip(share, 0, 1) * rim
    mask[mask < 0.08] = 0  # noise of the background
    return mask.astype(np.float32)


def _continue_tracks(tracks: list[Track], things: list[Sighting]) -> None:
    """Give each sighting to the track it fits best, cheapest pair first; what fits none begins one."""
    pairs = sorted(
        ((found.cost(thing), i, j) for i, found in enumerate(tracks) for j, thing in enumerate(things)),
        key=lambda pair: pair[0],
    )
    taken_tracks: set[int] = set()
    taken_things: set[int] = set()
    for cost, i, j in pairs:
        if cost <= SAME_COST and i not in taken_tracks and j not in taken_things:
            tracks[i].sightings.append(things[j])
            taken_tracks.add(i)
            taken_things.add(j)
    tracks += [Track([thing]) for j, thing in enumerate(things) if j not in taken_things]
