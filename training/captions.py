"""Sentences that say what a scene shows.

Every sentence names what can be seen: shape, colour, size, motion and its direction, speed, background. "Medium" and
"at a normal speed" may go unsaid. All words come from a closed list of fewer than 200. The first phrasing of each
list is the plain one. Knows no pixels.
"""

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import Generator, default_rng

from training.world import Background, Colour, Motion, Scene, Shape, Size, Speed, Thing, draw_scene

Phrase = TypeVar("Phrase")

PLAIN_SHARE = 0.4
"""Share of captions in the plain phrasing."""

SHAPES = {
    Shape.CIRCLE: ("circle", "disc", "ball"),
    Shape.SQUARE: ("square", "box"),
    Shape.TRIANGLE: ("triangle",),
    Shape.STAR: ("star",),
    Shape.RING: ("ring", "hoop"),
    Shape.CROSS: ("cross", "plus"),
}
SIZES = {
    Size.SMALL: ("small", "little", "tiny"),
    Size.MEDIUM: ("", "", "medium", "medium sized"),
    Size.LARGE: ("large", "big", "huge"),
}
COLOURS = {colour: (colour.value,) for colour in Colour} | {Colour.PURPLE: ("purple", "violet")}
BACKGROUNDS = {
    Background.NIGHT: ("over a night sky", "in front of a dark night sky", "at night", "against the night"),
    Background.SKY: ("over a pale sky", "in front of a bright sky", "by day", "against the daylight"),
    Background.SAND: ("on sand", "over the sand", "on a sandy beach", "in the desert"),
    Background.MEADOW: ("over a meadow", "on the grass", "in a meadow", "over a lawn"),
    Background.STONE: ("on stone", "over a stone floor", "on a stone wall", "against concrete"),
}
SPEEDS = {
    Speed.SLOW: ("slowly", "gently", "calmly"),
    Speed.NORMAL: ("", "", "", "steadily"),
    Speed.FAST: ("quickly", "fast", "rapidly"),
}
GO = (("drifts", "drifting"), ("moves", "moving"), ("glides", "gliding"), ("floats", "floating"))
ORBIT = (("circles", "circling"), ("orbits", "orbiting"), ("travels", "travelling"))
SPIN = (("spins", "spinning"), ("rotates", "rotating"), ("turns", "turning"))

Verbs = tuple[tuple[str, str], ...]
MOTIONS: dict[Motion, tuple[Verbs, tuple[str, ...]]] = {
    Motion.STILL: ((("stays", "staying"), ("remains", "remaining")), ("still", "in place", "without moving")),
    Motion.DRIFT_LEFT: (GO, ("to the left", "left", "towards the left", "from right to left")),
    Motion.DRIFT_RIGHT: (GO, ("to the right", "right", "towards the right", "from left to right")),
    Motion.DRIFT_UP: (GO, ("up", "upwards", "towards the top", "from the bottom to the top")),
    Motion.DRIFT_DOWN: (GO, ("down", "downwards", "towards the bottom", "from the top to the bottom")),
    Motion.BOUNCE: (
        (("bounces", "bouncing"),),
        ("around", "off the edges", "from edge to edge", "around the picture"),
    ),
    Motion.ORBIT_CLOCKWISE: (ORBIT, ("around the middle clockwise", "clockwise around the middle")),
    Motion.ORBIT_COUNTERCLOCKWISE: (
        ORBIT,
        ("around the middle counterclockwise", "counterclockwise around the middle"),
    ),
    Motion.SPIN_CLOCKWISE: (SPIN, ("in place clockwise", "clockwise in place", "clockwise on the spot")),
    Motion.SPIN_COUNTERCLOCKWISE: (
        SPIN,
        ("in place counterclockwise", "counterclockwise in place", "counterclockwise on the spot"),
    ),
    Motion.PULSE: (
        (
            ("grows and shrinks", "growing and shrinking"),
            ("pulses", "pulsing"),
            ("swells and shrinks", "swelling and shrinking"),
        ),
        ("",),
    ),
    Motion.RECOLOUR: (
        (("changes colour", "changing colour"), ("changes", "changing"), ("fades", "fading"), ("turns", "turning")),
        (
            "from {colour} to {after} and back",
            "between {colour} and {after}",
            "back and forth between {colour} and {after}",
        ),
    ),
}


def describe(scene: Scene, rng: Generator) -> str:
    """One sentence about a scene; the same scene has many."""
    return _sentence(scene, None if rng.random() < PLAIN_SHARE else rng)


def plain(scene: Scene) -> str:
    """The plain sentence about a scene."""
    return _sentence(scene, None)


def corpus(num: int, seed: int) -> list[str]:
    """Sentences about random training scenes, as a tokenizer needs them."""
    rng = default_rng(seed)
    return [describe(draw_scene(rng), rng) for _ in range(num)]


def _sentence(scene: Scene, rng: Generator | None) -> str:
    where = _pick(rng, BACKGROUNDS[scene.background])
    if len(scene.things) == 1:
        sentence = _about_one(scene.things[0], where, rng)
    else:
        sentence = _about_two(scene.things, where, rng)
    sentence = " ".join(sentence.split()).replace(" ,", ",")
    return f"{sentence[0].upper()}{sentence[1:]}."


def _about_one(thing: Thing, where: str, rng: Generator | None) -> str:
    name = _name(thing, rng)
    does, doing = _action(thing, rng)
    return _pick(
        rng,
        (
            f"{name} {does} {where}",
            f"{name} {doing} {where}",
            f"{where}, {name} {does}",
            f"{where} there is {name} that {does}",
            f"a video of {name} {doing} {where}",
            f"{name} that {does} {where}",
        ),
    )


def _about_two(things: Sequence[Thing], where: str, rng: Generator | None) -> str:
    first, second = things if rng is None or rng.random() < 0.5 else (things[1], things[0])
    one, other = _name(first, rng), _name(second, rng)
    (does, doing), (other_does, other_doing) = _action(first, rng), _action(second, rng)
    return _pick(
        rng,
        (
            f"{one} {does} while {other} {other_does} {where}",
            f"two shapes {where}: {one} {does} while {other} {other_does}",
            f"{where}, {one} {does} and {other} {other_does}",
            f"{one} {doing} and {other} {other_doing} {where}",
            f"a video of two shapes {where}: {one} {doing}, and {other} {other_doing}",
        ),
    )


def _name(thing: Thing, rng: Generator | None) -> str:
    colour = "" if thing.motion is Motion.RECOLOUR else _pick(rng, COLOURS[thing.colour])
    words = f"{_pick(rng, SIZES[thing.size])} {colour} {_pick(rng, SHAPES[thing.shape])}".split()
    return " ".join(["an" if words[0] == Colour.ORANGE else "a", *words])


def _action(thing: Thing, rng: Generator | None) -> tuple[str, str]:
    """What the thing does, as in "drifts slowly to the left" and "drifting slowly to the left"."""
    verbs, manners = MOTIONS[thing.motion]
    verb, manner = _pick(rng, verbs), _pick(rng, manners)
    if thing.colour_after is not None:
        manner = manner.format(colour=_pick(rng, COLOURS[thing.colour]), after=_pick(rng, COLOURS[thing.colour_after]))
    adverb = "" if thing.motion is Motion.STILL else _pick(rng, SPEEDS[thing.speed])
    order = _pick(rng, ("{verb} {adverb} {manner}", "{verb} {manner} {adverb}"))
    does, doing = (order.format(verb=form, adverb=adverb, manner=manner) for form in verb)
    return does, doing


def _pick(rng: Generator | None, choices: Sequence[Phrase]) -> Phrase:
    return choices[0 if rng is None else int(rng.integers(len(choices)))]
