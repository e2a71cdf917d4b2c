"""Reads from the pixels of a video what it shows, and compares that with a scene.

The reader is told nothing of the scene; it knows the world's backgrounds, colours, shapes and laws of motion. Works at
any size and best at the world's own 128 pixels.

Letters: T frames, H and W height and width in pixels.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations

import numpy as np

from training.quality.backdrop import Pixels, background_rows, recognise_background
from training.quality.motions import Course, Kind, classify, direction_of, kind_of
from training.quality.shapes import FOLDS, match, radius_of, turned
from training.quality.tracking import Sighting, Track, track
from training.render import COLOURS
from training.world import PULSE_RADII, Background, Colour, Motion, Scene, Shape, Size, Thing

MOST_THINGS = 2
LEAST_LIKENESS = 0.6
"""Intersection over union below which a mask shows none of the shapes."""
LARGEST_COLOUR_ERROR_RGB = 85.0
FEWEST_COLOUR_SHARE = 0.12
"""Share of the time for which a thing must have a colour to be said to have it."""
BLEND_RGB = 55.0
"""A colour that is farther from every one of the world's is on its way between two of them."""
SHAPE_LOOKS = 24
SECOND_THING_SHARE = 0.25
"""Share of the frames in which a second thing must be seen."""


class Attribute(StrEnum):
    """What a prompt says and the pixels can confirm."""

    COUNT = "count"
    BACKGROUND = "background"
    SHAPE = "shape"
    COLOUR = "colour"
    SIZE = "size"
    MOTION = "motion"
    DIRECTION = "direction"


@dataclass(frozen=True, kw_only=True)
class SeenThing:
    """What was read of one thing; None where it is like nothing in the world."""

    shape: Shape | None
    colours: frozenset[Colour]
    size: Size | None
    motion: Motion | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a video shows."""

    background: Background | None
    things: tuple[SeenThing, ...]
    thing_share: float = 0.0
    """Share of the picture that the things cover, in the mean over time."""


@dataclass(frozen=True)
class Score:
    """Which of the things a prompt says were found: one entry for each attribute of each thing."""

    hits: tuple[tuple[Attribute, bool], ...]

    @property
    def accuracy(self) -> float:
        """Share that was found."""
        return sum(hit for _, hit in self.hits) / len(self.hits)

    @property
    def is_perfect(self) -> bool:
        """Whether all were found."""
        return all(hit for _, hit in self.hits)

    def of(self, attribute: Attribute) -> list[bool]:
        """The entries of one attribute."""
        return [hit for name, hit in self.hits if name is attribute]


def score(scene: Scene, frames_THW3: Pixels) -> Score:
    """How much of a scene a video shows: uint8 RGB [T, H, W, 3]."""
    return compare(scene, read(frames_THW3))


def read(frames_THW3: Pixels) -> Reading:
    """What a video shows: uint8 RGB [T, H, W, 3]. Raises ``ValueError`` on frames of another kind."""
    if frames_THW3.ndim != 4 or frames_THW3.shape[3] != 3 or frames_THW3.dtype != np.uint8:
        raise ValueError(f"frames are {frames_THW3.dtype} {frames_THW3.shape}, needed uint8 [T, H, W, 3]")
    background = recognise_background(frames_THW3)
    if background is None:
        return Reading(background=None, things=())
    tracks = track(frames_THW3, background_rows(frames_THW3, background))
    fewest = SECOND_THING_SHARE * len(frames_THW3)
    lasting = [found for n, found in enumerate(tracks) if n == 0 or len(found.sightings) >= fewest]
    return Reading(
        background=background,
        things=tuple(_read_thing(found, frames_THW3.shape[1]) for found in lasting),
        thing_share=sum(seen.area_px for found in lasting for seen in found.sightings) / frames_THW3[..., 0].size,
    )


def compare(scene: Scene, reading: Reading) -> Score:
    """Score a reading; things are paired as is best for it, and a missing thing has none of its attributes."""
    of_scene = (
        (Attribute.COUNT, len(reading.things) == len(scene.things)),
        (Attribute.BACKGROUND, reading.background is scene.background),
    )
    seen: list[SeenThing | None] = [*reading.things[: MOST_THINGS + 1], *([None] * len(scene.things))]
    pairings = (
        tuple(hit for thing, found in zip(scene.things, order, strict=True) for hit in _thing_hits(thing, found))
        for order in permutations(seen, len(scene.things))
    )
    return Score(of_scene + max(pairings, key=lambda hits: sum(hit for _, hit in hits)))


def _thing_hits(thing: Thing, seen: SeenThing | None) -> tuple[tuple[Attribute, bool], ...]:
    colours = frozenset({thing.colour, thing.colour_after} - {None})
    hits = [
        (Attribute.SHAPE, seen is not None and seen.shape is thing.shape),
        (Attribute.COLOUR, seen is not None and seen.colours == colours),
        (Attribute.SIZE, seen is not None and seen.size is thing.size),
        (Attribute.MOTION, seen is not None and _kind(seen.motion) is kind_of(thing.motion)),
    ]
    if direction_of(thing.motion) is not None:
        hits.append((Attribute.DIRECTION, seen is not None and seen.motion is thing.motion))
    return tuple(hits)


def _kind(motion: Motion | None) -> Kind | None:
    return None if motion is None else kind_of(motion)


def _read_thing(found: Track, height_px: int) -> SeenThing:
    shape = _shape(found.clearest)
    colours = _colours(found.sightings)
    motion = classify(_course(found.course, shape, len(colours), height_px))
    radii = [radius_of(shape, seen.area_px) / height_px for seen in found.clearest] if shape else []
    return SeenThing(shape=shape, colours=colours, size=_size(radii, motion) if radii else None, motion=motion)


def _shape(sightings: Sequence[Sighting]) -> Shape | None:
    """The shape that the masks are most like, over a number of looks; None if they are like none."""
    looks = sightings[:: max(1, len(sightings) // SHAPE_LOOKS)]
    likeness: Counter[Shape] = Counter()
    for seen in looks:
        likeness.update(match(seen.mask, seen.x_px - seen.left_px, seen.y_px - seen.top_px))
    shape, total = likeness.most_common(1)[0]
    return shape if total >= LEAST_LIKENESS * len(looks) else None


def _colours(sightings: Sequence[Sighting]) -> frozenset[Colour]:
    """The colours a thing has for a fair share of the time: one, or the two it changes between."""
    nearest = [_nearest_colour(seen.rgb) for seen in sightings]
    pure = Counter(colour for colour, distance in nearest if distance < BLEND_RGB)
    lasting = [colour for colour, count in pure.most_common(2) if count >= FEWEST_COLOUR_SHARE * len(sightings)]
    if lasting:
        return frozenset(lasting)
    close = Counter(colour for colour, distance in nearest if distance < LARGEST_COLOUR_ERROR_RGB)
    return frozenset(colour for colour, _ in close.most_common(1))


def _nearest_colour(rgb: tuple[float, float, float]) -> tuple[Colour, float]:
    distances = {colour: math.dist(rgb, nominal) for colour, nominal in COLOURS.items()}
    return min(distances.items(), key=lambda item: item[1])


def _course(sightings: Sequence[Sighting], shape: Shape | None, num_colours: int, height_px: int) -> Course:
    folds = None if shape is None else FOLDS.get(shape)
    return Course(
        frames_N=np.array([seen.frame for seen in sightings]),
        x_N=np.array([seen.x_px for seen in sightings]) / height_px,
        y_N=np.array([seen.y_px for seen in sightings]) / height_px,
        radius_N=np.array([radius_of(shape or Shape.CIRCLE, seen.area_px) for seen in sightings]) / height_px,
        angle_N=np.array([_angle(seen, folds) for seen in sightings]),
        fold_rad=None if folds is None else math.tau / folds,
        num_colours=num_colours,
    )


def _angle(seen: Sighting, folds: int | None) -> float:
    if folds is None:
        return 0.0
    return turned(seen.mask, seen.x_px - seen.left_px, seen.y_px - seen.top_px, folds)


def _size(radii: Sequence[float], motion: Motion | None) -> Size:
    """The size whose radius is nearest in ratio; of a pulsing thing, by the middle of its range."""
    radius = float(np.median(radii))
    if motion is Motion.PULSE:
        low, high = np.percentile(radii, (3, 97))
        radius = float(low + high) / sum(PULSE_RADII)
    return min(Size, key=lambda size: abs(math.log(size.value / max(radius, 1e-6))))
