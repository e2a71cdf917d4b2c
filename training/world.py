"""A small world of moving shapes: what a scene is, how scenes are drawn, and where their things are at any time.

A scene is a background and one or two things, each with a law of motion that is a pure function of time, so a scene
has no end and any moment of it can be computed alone. Lengths are in units of the picture (1.0 is its side), the
origin is the upper left corner and y points down. Some pairs of shape and colour, and of shape and motion, are never
drawn for training; every held-out scene shows one of them.

Two CPU cores shall learn this world in hours, so chance decides what a sentence says and little else: one thing stays
in the middle of the picture or its way leads through it, and each motion begins at about the same moment of its cycle.
So a sentence alone tells where its thing will be. Were that moment as likely as any other, a direction would show only
in how pictures follow each other, which the first and noisiest steps could not learn. Knows no pixels and no words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import TypeVar

from numpy.random import Generator

Choice = TypeVar("Choice")


class Shape(StrEnum):
    """What a thing is."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    RING = "ring"
    CROSS = "cross"


class Colour(StrEnum):
    """What colour a thing has."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    WHITE = "white"


class Size(Enum):
    """How large a thing is; the value is its radius."""

    SMALL = 16 / 128
    MEDIUM = 22 / 128
    LARGE = 32 / 128


class Background(StrEnum):
    """What is behind the things."""

    NIGHT = "night"
    SKY = "sky"
    SAND = "sand"
    MEADOW = "meadow"
    STONE = "stone"


class Motion(StrEnum):
    """What a thing does, for ever."""

    STILL = "still"
    DRIFT_LEFT = "drift left"
    DRIFT_RIGHT = "drift right"
    DRIFT_UP = "drift up"
    DRIFT_DOWN = "drift down"
    BOUNCE = "bounce"
    ORBIT_CLOCKWISE = "orbit clockwise"
    ORBIT_COUNTERCLOCKWISE = "orbit counterclockwise"
    SPIN_CLOCKWISE = "spin clockwise"
    SPIN_COUNTERCLOCKWISE = "spin counterclockwise"
    PULSE = "pulse"
    RECOLOUR = "recolour"


class Speed(Enum):
    """How fast it does so; the value is the picture sides a second that something travels."""

    SLOW = 0.125
    NORMAL = 0.25
    FAST = 0.4375


class Split(StrEnum):
    """Which scenes to draw."""

    TRAIN = "train"
    HELD_OUT = "held_out"


DRIFTS = {
    Motion.DRIFT_LEFT: (-1, 0),
    Motion.DRIFT_RIGHT: (1, 0),
    Motion.DRIFT_UP: (0, -1),
    Motion.DRIFT_DOWN: (0, 1),
}
"""Direction of each drift (x, y)."""
TURNS = {
    Motion.ORBIT_CLOCKWISE: 1,
    Motion.ORBIT_COUNTERCLOCKWISE: -1,
    Motion.SPIN_CLOCKWISE: 1,
    Motion.SPIN_COUNTERCLOCKWISE: -1,
}
"""Sense of turning: 1 is clockwise as seen."""
ORBITS = (Motion.ORBIT_CLOCKWISE, Motion.ORBIT_COUNTERCLOCKWISE)
SPINS = (Motion.SPIN_CLOCKWISE, Motion.SPIN_COUNTERCLOCKWISE)
ROUND = (Shape.CIRCLE, Shape.RING)
"""Shapes that show no angle; they never spin."""

HELD_OUT_COLOURS = frozenset(
    {
        (Shape.CIRCLE, Colour.GREEN),
        (Shape.SQUARE, Colour.RED),
        (Shape.TRIANGLE, Colour.WHITE),
        (Shape.STAR, Colour.BLUE),
        (Shape.RING, Colour.YELLOW),
        (Shape.CROSS, Colour.ORANGE),
    }
)
HELD_OUT_MOTIONS = frozenset(
    {
        (Shape.CIRCLE, Motion.ORBIT_CLOCKWISE),
        (Shape.SQUARE, Motion.DRIFT_LEFT),
        (Shape.TRIANGLE, Motion.PULSE),
        (Shape.STAR, Motion.BOUNCE),
        (Shape.RING, Motion.DRIFT_UP),
        (Shape.CROSS, Motion.SPIN_COUNTERCLOCKWISE),
    }
)

REACHES = {
    Shape.CIRCLE: 1.0,
    Shape.SQUARE: 0.85,
    Shape.TRIANGLE: 1.2,
    Shape.STAR: 1.2,
    Shape.RING: 1.0,
    Shape.CROSS: 1.0,
}
"""How far an upright shape reaches from its centre along an axis, in radii."""
REACH = 1.21
"""The farthest point of any shape from its centre at any angle, in radii."""
SPIN_TURNS = 0.5
"""Turns of a spinning thing for each picture side that a travelling one covers."""
PULSE_CYCLES = 1.2
RECOLOUR_CYCLES = 1.0
"""Cycles for each picture side that a travelling thing covers."""
PULSE_RADII = (0.8, 1.4)
"""Least and largest radius of a pulsing thing, in its radii at rest."""
ORBIT_GAP = 0.02
"""Least distance of an orbiting thing from the edge of the picture."""

DRAWN_SHAPES = (Shape.CIRCLE, Shape.SQUARE, Shape.TRIANGLE, Shape.STAR)
DRAWN_COLOURS = (Colour.RED, Colour.YELLOW, Colour.GREEN, Colour.BLUE, Colour.WHITE)
DRAWN_BACKGROUNDS = (Background.NIGHT, Background.SKY, Background.SAND)
DRAWN_SPEEDS = (Speed.NORMAL, Speed.FAST)
"""What random scenes are made of: as much as two CPU cores learn in hours. All else has pictures and words too."""
ALONE_SIZES = (Size.MEDIUM, Size.LARGE)
PAIR_SIZES = (Size.SMALL, Size.MEDIUM)
TWO_THINGS_SHARE = 0.1
MOTION_WEIGHTS = {
    Motion.STILL: 0.06,
    **dict.fromkeys(DRIFTS, 0.11),
    Motion.BOUNCE: 0.12,
    **dict.fromkeys(ORBITS, 0.08),
    **dict.fromkeys(SPINS, 0.1),
    Motion.PULSE: 0.1,
    Motion.RECOLOUR: 0.1,
}
START_PHASES = {Motion.ORBIT_CLOCKWISE: 0.75, Motion.ORBIT_COUNTERCLOCKWISE: 0.75, Motion.RECOLOUR: 0.6}
"""Where in its cycle a thing begins, if not at 0: orbits at the top, what changes colour with its first colour."""
DRIFT_LEAD = 0.3
"""How far from home, against its way, a drifting thing begins."""
JITTER = 0.04
"""Width of the range of moments a scene begins at, in cycles or picture sides."""
SPIN_JITTER = 0.02
"""The same of what spins, in turns: a star looks as before after a fifth of one, so more would blur its points."""
MIDDLE = (0.5, 0.5)
QUARTERS = ((0.28, 0.28), (0.72, 0.72), (0.28, 0.72), (0.72, 0.28))
"""Where each of two things belongs: one of the first two, or of the last two, and the other."""
BOUNCE_LEAD = 1 / 8
"""How far a bouncing thing's way down is ahead of its way across, in whole ways there and back."""
PLACEMENT_TRIES = 24
PLACEMENT_TIMES_S = tuple(0.4 * step for step in range(60))


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape and its law of motion."""

    shape: Shape
    colour: Colour
    colour_after: Colour | None = None
    """The other colour of a thing that changes colour back and forth; None for all others."""
    size: Size
    motion: Motion
    speed: Speed = Speed.NORMAL
    x: float
    y: float
    """Centre at time 0 of what stays or drifts; start within the range of what bounces; unused by orbits."""
    phase: float
    """Where in its cycle the thing is at time 0, in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background and the things before it; a later thing hides an earlier one."""

    background: Background
    things: tuple[Thing, ...]


@dataclass(frozen=True, kw_only=True)
class ThingState:
    """What can be seen of a thing at one moment."""

    x: float
    y: float
    radius: float
    angle_rad: float
    """Clockwise; 0 is upright."""
    colour_after_share: float
    """How much of ``colour_after`` is mixed into the colour, 0 to 1."""


def state(scene: Scene, time_s: float) -> tuple[ThingState, ...]:
    """Where the things of a scene are at a time, in their order. Any time works, however late."""
    return tuple(_state(thing, time_s) for thing in scene.things)


def _state(thing: Thing, time_s: float) -> ThingState:
    radius, angle_rad, share = thing.size.value, 0.0, 0.0
    travelled = thing.speed.value * time_s
    x, y = thing.x, thing.y
    if thing.motion in DRIFTS:
        x, y = _drift(thing, travelled)
    elif thing.motion is Motion.BOUNCE:
        x, y = (_between_edges(start, travelled * math.sqrt(0.5), radius) for start in (x, y))
    elif thing.motion in ORBITS:
        orbit_radius = 0.5 - radius * REACH - ORBIT_GAP
        turned_rad = math.tau * thing.phase + TURNS[thing.motion] * travelled / orbit_radius
        x, y = 0.5 + orbit_radius * math.cos(turned_rad), 0.5 + orbit_radius * math.sin(turned_rad)
    elif thing.motion in SPINS:
        angle_rad = math.tau * (thing.phase + TURNS[thing.motion] * SPIN_TURNS * travelled) % math.tau
    elif thing.motion is Motion.PULSE:
        swing = math.sin(math.tau * (thing.phase + PULSE_CYCLES * travelled))
        radius *= (PULSE_RADII[0] + PULSE_RADII[1]) / 2 + (PULSE_RADII[1] - PULSE_RADII[0]) / 2 * swing
    elif thing.motion is Motion.RECOLOUR:
        swing = math.sin(math.tau * (thing.phase + RECOLOUR_CYCLES * travelled))
        share = 0.5 + 0.5 * math.tanh(4 * swing) / math.tanh(4)
    return ThingState(x=x, y=y, radius=radius, angle_rad=angle_rad, colour_after_share=share)


def _drift(thing: Thing, travelled: float) -> tuple[float, float]:
    """The thing leaves the picture altogether, then comes in at the opposite edge."""
    along_x, along_y = DRIFTS[thing.motion]
    reach = thing.size.value * REACHES[thing.shape]
    x = (thing.x + along_x * travelled + reach) % (1 + 2 * reach) - reach if along_x else thing.x
    y = (thing.y + along_y * travelled + reach) % (1 + 2 * reach) - reach if along_y else thing.y
    return x, y


def _between_edges(start: float, travelled: float, radius: float) -> float:
    """Back and forth between the edges; ``start`` in [0, 1) is a place of the whole way there and back."""
    span = 1 - 2 * radius
    way = (start * 2 * span + travelled) % (2 * span)
    return radius + (way if way < span else 2 * span - way)


def draw_scene(rng: Generator, split: Split = Split.TRAIN) -> Scene:
    """A random scene. Two things of a scene differ in shape and colour, and meet as little as a few tries allow."""
    background = _one_of(rng, DRAWN_BACKGROUNDS)
    if rng.random() >= TWO_THINGS_SHARE:
        return Scene(background=background, things=(_draw_thing(rng, split, ALONE_SIZES),))
    first = _draw_thing(rng, split, PAIR_SIZES)
    second = _draw_thing(rng, Split.TRAIN, PAIR_SIZES, apart_from=first)
    return Scene(background=background, things=_draw_apart(rng, first, second))


def is_held_out(thing: Thing) -> bool:
    """Whether training never shows this combination."""
    colours = {thing.colour, thing.colour_after}
    return (thing.shape, thing.motion) in HELD_OUT_MOTIONS or any((thing.shape, c) in HELD_OUT_COLOURS for c in colours)


def _draw_thing(rng: Generator, split: Split, sizes: Sequence[Size], apart_from: Thing | None = None) -> Thing:
    """A thing of the split, by trying until one fits."""
    while True:
        motion = _one_of(rng, tuple(MOTION_WEIGHTS), tuple(MOTION_WEIGHTS.values()))
        colour, colour_after = (DRAWN_COLOURS[index] for index in rng.choice(len(DRAWN_COLOURS), 2, replace=False))
        thing = _placed(
            rng,
            Thing(
                shape=_one_of(rng, DRAWN_SHAPES),
                colour=colour,
                colour_after=colour_after if motion is Motion.RECOLOUR else None,
                size=_one_of(rng, sizes),
                motion=motion,
                speed=Speed.NORMAL if motion is Motion.STILL else _one_of(rng, DRAWN_SPEEDS),
                x=0.5,
                y=0.5,
                phase=0.0,
            ),
        )
        if thing.shape in ROUND and motion in SPINS:
            continue
        if apart_from is not None and _alike(thing, apart_from):
            continue
        if is_held_out(thing) == (split is Split.HELD_OUT):
            return thing


def _alike(thing: Thing, other: Thing) -> bool:
    colours, others = {thing.colour, thing.colour_after}, {other.colour, other.colour_after}
    return thing.shape is other.shape or bool(colours & others - {None})


def _placed(rng: Generator, thing: Thing, home: tuple[float, float] = MIDDLE) -> Thing:
    """The same thing about where its motion begins. What stays is at ``home``, what drifts is on its way there."""
    jitter = (SPIN_JITTER if thing.motion in SPINS else JITTER) * (rng.random() - 0.5)
    phase = START_PHASES.get(thing.motion, 0.0) + jitter
    if thing.motion is Motion.BOUNCE:
        return replace(thing, x=phase % 1, y=(phase + BOUNCE_LEAD) % 1)
    way = DRIFTS.get(thing.motion, (0, 0))
    x, y = (place + along * (jitter - DRIFT_LEAD) for place, along in zip(home, way, strict=True))
    return replace(thing, x=x, y=y, phase=phase % 1)


def _draw_apart(rng: Generator, first: Thing, second: Thing) -> tuple[Thing, Thing]:
    """Places for two things where they meet least often, among a few."""
    best, fewest = (first, second), len(PLACEMENT_TIMES_S) + 1
    for _ in range(PLACEMENT_TRIES):
        quarter = int(rng.integers(len(QUARTERS)))
        pair = _placed(rng, first, QUARTERS[quarter]), _placed(rng, second, QUARTERS[quarter ^ 1])
        meetings = sum(_meet(pair, time_s) for time_s in PLACEMENT_TIMES_S)
        if meetings < fewest:
            best, fewest = pair, meetings
        if fewest == 0:
            break
    return best


def _meet(pair: tuple[Thing, Thing], time_s: float) -> bool:
    first, second = (_state(thing, time_s) for thing in pair)
    return math.hypot(first.x - second.x, first.y - second.y) < REACH * (first.radius + second.radius)


def _one_of(rng: Generator, choices: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    total = sum(weights)
    return choices[int(rng.choice(len(choices), p=[weight / total for weight in weights]))]
