"""The world of the small model: its laws of motion, its splits, its pixels and its sentences."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image

from training.captions import corpus, describe, plain
from training.render import BACKGROUNDS, COLOURS, render
from training.sheet import write_sheet
from training.world import (
    DRAWN_COLOURS,
    DRAWN_SHAPES,
    DRIFTS,
    HELD_OUT_COLOURS,
    HELD_OUT_MOTIONS,
    REACHES,
    ROUND,
    SPINS,
    TURNS,
    Background,
    Colour,
    Motion,
    Scene,
    Shape,
    Size,
    Speed,
    Split,
    Thing,
    draw_scene,
    is_held_out,
    state,
)

THING = Thing(shape=Shape.STAR, colour=Colour.RED, size=Size.SMALL, motion=Motion.STILL, x=0.4, y=0.6, phase=0.1)
DAY_S = 86400.0


def scene(**changes: object) -> Scene:
    return Scene(background=Background.NIGHT, things=(replace(THING, **changes),))


def draw(num: int, split: Split = Split.TRAIN) -> list[Scene]:
    rng = default_rng(1)
    return [draw_scene(rng, split) for _ in range(num)]


@pytest.mark.parametrize("motion", DRIFTS)
def test_a_drift_travels_at_its_speed_and_comes_in_again_at_the_other_edge(motion: Motion) -> None:
    drifting = scene(motion=motion)
    places = [(now.x, now.y) for (now,) in (state(drifting, DAY_S + step / 16) for step in range(160))]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(places)]
    along, across = DRIFTS[motion]
    forth = [step for step in steps if step[0] * along + step[1] * across > 0]
    assert len(steps) - len(forth) == 2, "160 frames hold two re-entries"
    assert np.allclose(forth, np.array([along, across]) * Speed.NORMAL.value / 16, atol=1e-6)


def test_a_thing_that_left_is_wholly_gone_when_it_comes_in_again() -> None:
    drifting = scene(motion=Motion.DRIFT_RIGHT, y=0.5)
    reach = Size.SMALL.value * REACHES[Shape.STAR]
    ((left,), (came,)) = (state(drifting, (0.6 + reach + nudge) / Speed.NORMAL.value) for nudge in (-1e-6, 1e-6))
    assert left.x == pytest.approx(1 + reach, abs=1e-5) and came.x == pytest.approx(-reach, abs=1e-5)


def test_what_bounces_orbits_spins_or_pulses_stays_whole() -> None:
    for drawn in draw(150):
        for thing, now in zip(drawn.things, state(drawn, DAY_S), strict=True):
            if thing.motion not in DRIFTS:
                reach = now.radius * min(1.0, REACHES[thing.shape])
                assert reach - 1e-6 <= min(now.x, now.y) and max(now.x, now.y) <= 1 - reach + 1e-6, thing


@pytest.mark.parametrize("motion", [motion for motion in TURNS if motion not in SPINS])
def test_an_orbit_goes_round_the_middle_in_its_sense(motion: Motion) -> None:
    (first,), (second,) = (state(scene(motion=motion), time_s) for time_s in (7.0, 7.1))
    turned = math.atan2(second.y - 0.5, second.x - 0.5) - math.atan2(first.y - 0.5, first.x - 0.5)
    assert math.copysign(1, (turned + math.pi) % math.tau - math.pi) == TURNS[motion]


def test_a_scene_is_endless_and_any_part_of_it_can_be_rendered_alone() -> None:
    drawn = draw(3)[2]
    late = 16 * 3600 * 24
    assert np.array_equal(render(drawn, late, 20)[12:], render(drawn, late + 12, 8))


def test_a_sentence_tells_where_its_thing_will_be() -> None:
    """Each law of motion begins at about one moment, and opposite ways lead to places far from each other."""
    places: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for drawn in (drawn for drawn in draw(1500) if len(drawn.things) == 1):
        (thing,), (later,) = drawn.things, state(drawn, 0.5)
        key = (thing.motion, thing.size, thing.speed)
        places.setdefault(key, []).append((later.x + later.angle_rad / math.tau % 1, later.y))
    spreads = {key: np.ptp(np.array(found), axis=0).max() for key, found in places.items()}
    assert len(places) == 46 and max(spreads.values()) < 0.16, spreads
    middles = {key: np.mean(found, axis=0) for key, found in places.items()}
    opposites = [
        (Motion.DRIFT_LEFT, Motion.DRIFT_RIGHT),
        (Motion.DRIFT_UP, Motion.DRIFT_DOWN),
        (Motion.ORBIT_CLOCKWISE, Motion.ORBIT_COUNTERCLOCKWISE),
        (Motion.SPIN_CLOCKWISE, Motion.SPIN_COUNTERCLOCKWISE),
    ]
    for one, other in opposites:
        for kind in ((Size.LARGE, Speed.NORMAL), (Size.MEDIUM, Speed.FAST)):
            assert np.abs(middles[one, *kind] - middles[other, *kind]).max() > 0.15, (one, kind)


def test_training_never_shows_what_is_held_out_and_held_out_scenes_always_do() -> None:
    trained = [thing for drawn in draw(600) for thing in drawn.things]
    assert not any(map(is_held_out, trained))
    assert all(is_held_out(drawn.things[0]) for drawn in draw(80, Split.HELD_OUT))
    seen = {(thing.shape, thing.colour) for thing in trained} | {(thing.shape, thing.motion) for thing in trained}
    possible = {(shape, colour) for shape in DRAWN_SHAPES for colour in DRAWN_COLOURS}
    possible |= {(s, motion) for s in DRAWN_SHAPES for motion in Motion if not (s in ROUND and motion in SPINS)}
    assert seen == possible - HELD_OUT_COLOURS - HELD_OUT_MOTIONS


def test_two_things_differ_in_shape_and_colour() -> None:
    pairs = [drawn.things for drawn in draw(300) if len(drawn.things) == 2]
    assert 20 < len(pairs) < 45
    for first, second in pairs:
        assert first.shape is not second.shape
        assert not {first.colour, first.colour_after} & {second.colour, second.colour_after} - {None}


def test_a_shape_covers_the_pixels_that_its_area_says() -> None:
    frame = render(scene(shape=Shape.CIRCLE, size=Size.LARGE, x=0.5, y=0.5), 0, 1)[0].astype(float)
    night = render(Scene(background=Background.NIGHT, things=()), 0, 1)[0].astype(float)
    covered = ((frame - night)[..., 0] / (COLOURS[Colour.RED][0] - night[..., 0])).sum()
    assert covered == pytest.approx(math.pi * 32**2, rel=0.01)
    assert tuple(frame[64, 64]) == COLOURS[Colour.RED]
    assert np.array_equal(frame[0], night[0])


def test_colours_are_far_from_each_other_and_from_every_background() -> None:
    grounds = [rgb for ends in BACKGROUNDS.values() for rgb in ends]
    colours = list(COLOURS.values())
    assert min(math.dist(a, b) for n, a in enumerate(colours) for b in colours[:n]) > 85
    assert min(math.dist(colour, ground) for colour in colours for ground in grounds) > 80


def test_the_plain_sentence() -> None:
    drifting = scene(motion=Motion.DRIFT_LEFT, speed=Speed.SLOW, size=Size.LARGE)
    assert plain(drifting) == "A large red star drifts slowly to the left over a night sky."
    changing = scene(motion=Motion.RECOLOUR, shape=Shape.RING, colour=Colour.ORANGE, colour_after=Colour.BLUE)
    assert plain(changing) == "A small ring changes colour from orange to blue and back over a night sky."
    medium = scene(size=Size.MEDIUM, colour=Colour.ORANGE)
    assert plain(medium) == "An orange star stays still over a night sky."


def test_the_same_seed_gives_the_same_sentences_in_every_process() -> None:
    assert corpus(3, seed=1) == [
        "A yellow circle drifts quickly down over a pale sky.",
        "A red circle drifts up on sand.",
        "A large blue triangle bounces around over a night sky.",
    ]


def test_sentences_are_many_well_formed_and_of_few_words() -> None:
    sentences = corpus(800, seed=3)
    assert len(set(sentences)) > 720
    assert all(re.fullmatch(r"[A-Z]\w*(,? \w+|: \w+)+\.", sentence) for sentence in sentences)
    words = {word for sentence in sentences for word in re.findall(r"\w+", sentence.lower())}
    assert len(words) < 200 and not any(re.search(r"\b[Aa] [aeiou]", sentence) for sentence in sentences)


def test_a_sheet_has_a_row_of_moments_for_every_scene(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", draw(2), default_rng(0))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 2 * (128 + 18))


def test_one_scene_has_many_sentences_that_all_say_its_colour() -> None:
    rng, drifting = default_rng(5), scene(motion=Motion.DRIFT_LEFT)
    sentences = {describe(drifting, rng) for _ in range(200)}
    assert len(sentences) > 80 and all("red" in sentence and "star" in sentence for sentence in sentences)
