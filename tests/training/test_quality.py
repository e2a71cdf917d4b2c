"""The checker on pictures whose truth is known, the measures on videos with known faults, and the shipped model."""

import asyncio
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from engine import Manifest, WeightsError
from engine.config import RolloutConfig
from engine.law.schedule import frames_in_block
from training.captions import plain
from training.quality.__main__ import main
from training.quality.backdrop import Pixels
from training.quality.checker import Attribute, Reading, compare, read, score
from training.quality.films import Film, choose_films
from training.quality.measures import DYNAMIC_FLOW_PX, flicker, flow_px, measure
from training.quality.record import Record, Video
from training.quality.running import Lengths, Run, run_all
from training.quality.sources import Way, open_source, read_entry
from training.quality.summary import over_seeds, summarise
from training.render import render
from training.world import Background, Colour, Motion, Scene, Shape, Size, Split, Thing, draw_scene, is_held_out

MODEL = Path("models/tiny")
WINDOW_FRAMES = 64
THING = Thing(
    shape=Shape.SQUARE, colour=Colour.BLUE, size=Size.MEDIUM, motion=Motion.DRIFT_UP, x=0.45, y=0.7, phase=0.2
)


def one_thing(**changes: object) -> Scene:
    return Scene(background=Background.SAND, things=(replace(THING, **changes),))


def draw(num: int, seed: int) -> list[Scene]:
    rng = default_rng(seed)
    return [draw_scene(rng) for _ in range(num)]


def accuracy(scenes: Sequence[Scene], readings: Sequence[Reading]) -> float:
    hits = [hit for pair in zip(scenes, readings, strict=True) for _, hit in compare(*pair).hits]
    return sum(hits) / len(hits)


def encoded(frames: Pixels) -> Pixels:
    """Through H.264 and back."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=16, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    file.seek(0)
    with av.open(file) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def worsened(frames: Pixels) -> Pixels:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in frames])
    noisy = blurred + default_rng(0).normal(0, 6, blurred.shape)
    return encoded(noisy.clip(0, 255).astype(np.uint8))


@pytest.mark.slow
def test_the_checker_reads_what_the_world_shows_and_not_what_it_does_not() -> None:
    scenes = draw(16, seed=20)
    readings = [read(render(scene, 0, WINDOW_FRAMES)) for scene in scenes]
    assert accuracy(scenes, readings) >= 0.97
    assert accuracy(scenes, [readings[-1], *readings[:-1]]) < 0.45


@pytest.mark.slow
def test_blur_noise_and_compression_do_not_mislead_the_checker() -> None:
    scenes = draw(8, seed=21)
    assert accuracy(scenes, [read(worsened(render(scene, 0, WINDOW_FRAMES))) for scene in scenes]) >= 0.95


@pytest.mark.parametrize("motion", Motion)
def test_every_motion_is_told_from_the_others(motion: Motion) -> None:
    after = Colour.RED if motion is Motion.RECOLOUR else None
    (seen,) = read(render(one_thing(motion=motion, colour_after=after), 0, 72)).things
    assert seen.motion is motion
    assert seen.colours == {Colour.BLUE, after} - {None}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"colour": Colour.GREEN}, Attribute.COLOUR),
        ({"shape": Shape.CIRCLE}, Attribute.SHAPE),
        ({"size": Size.LARGE}, Attribute.SIZE),
        ({"motion": Motion.DRIFT_DOWN}, Attribute.DIRECTION),
    ],
)
def test_one_wrong_attribute_is_one_miss(change: dict[str, object], wrong: Attribute) -> None:
    found = score(one_thing(**change), render(one_thing(), 0, 48))
    assert [attribute for attribute, hit in found.hits if not hit] == [wrong]


def test_a_missing_thing_has_nothing_and_the_count_is_wrong() -> None:
    two = Scene(background=Background.SAND, things=(*one_thing().things, replace(THING, shape=Shape.STAR)))
    found = score(two, render(one_thing(), 0, 48))
    assert found.of(Attribute.COUNT) == [False] and found.of(Attribute.BACKGROUND) == [True]
    assert sorted(found.of(Attribute.COLOUR)) == [False, True]


def test_noise_shows_nothing() -> None:
    noise = default_rng(1).integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
    assert read(noise) == Reading(background=None, things=())
    assert score(one_thing(), noise).accuracy == 0


def test_other_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        read(np.zeros((2, 128, 128, 3), np.float32))


def test_flow_is_the_speed_of_what_moves_and_nothing_where_nothing_does() -> None:
    assert flow_px(render(one_thing(size=Size.LARGE), 0, 12)) == pytest.approx(2.0, rel=0.15)
    still = render(one_thing(motion=Motion.STILL), 0, 12)
    assert flow_px(still) < DYNAMIC_FLOW_PX / 10
    shimmer = np.random.default_rng(0).integers(0, 4, still.shape, np.uint8)
    assert flow_px(still + shimmer) < DYNAMIC_FLOW_PX / 10


def test_a_seam_between_blocks_is_seen() -> None:
    frames = render(one_thing(), 0, 45)
    assert flicker(frames, RolloutConfig()) == pytest.approx(1.0, abs=0.15)
    frames[21:33] += 6  # the third block
    seam = flicker(frames, RolloutConfig())
    assert seam is not None and seam > 3
    assert flicker(render(one_thing(motion=Motion.STILL), 0, 45), RolloutConfig()) is None


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Two prompts, two seeds each, as the world itself shows them."""
    run = make_run(tmp_path_factory.mktemp("quality"), choose_films(2, 0, 2), seconds=10)
    asyncio.run(run_all(run))
    return run.record.of(run.entries[0], Split.TRAIN)


@pytest.mark.slow
def test_a_video_that_pales_and_blurs_drifts(videos: list[Video]) -> None:
    healthy = summarise(videos, 5)
    assert healthy.num_videos == 4 and healthy.accuracy.mean > 0.85  # one of two things hides the other at times
    frames = render(one_thing(motion=Motion.SPIN_CLOCKWISE), 0, 80)
    fading = [faded(frames[n * 16 : (n + 1) * 16], n) for n in range(5)]
    windows = tuple(measure(one_thing(motion=Motion.SPIN_CLOCKWISE), part) for part in fading)
    sick = summarise([replace(videos[0], windows=windows)], 5)
    assert sick.changes["saturation"].mean < -0.08 and sick.changes["sharpness"].mean < -0.5
    assert sick.drift.mean > 0.2 and sick.drift.deviation is None


def faded(frames: Pixels, amount: int) -> Pixels:
    grey = frames.mean(axis=3, keepdims=True)
    pale = (frames + (grey - frames) * amount * 0.15).astype(np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 0.01 + amount * 0.5) for frame in pale])


@pytest.mark.slow
def test_the_spread_is_that_of_seeds_and_not_of_prompts(videos: list[Video]) -> None:
    spread = over_seeds(videos, [0.0 if video.film.startswith("train-0") else 1.0 for video in videos])
    assert spread.mean == 0.5 and spread.deviation == 0


def make_run(folder: Path, films: Sequence[Film], seconds: int) -> Run:
    return Run(
        entries=[read_entry("world", Way.WORLD, MODEL)],
        films=films,
        lengths=Lengths(seconds=(seconds,)),
        device="cpu",
        num_threads=1,
        record=Record(folder / "record"),
    )


def test_windows_fill_every_length() -> None:
    lengths = Lengths(seconds=(20, 60))
    assert lengths.window_s == 4 and [lengths.num_windows(seconds) for seconds in (20, 60)] == [5, 15]
    with pytest.raises(ValueError, match="30 s is no multiple"):
        Lengths(seconds=(20, 30))


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = choose_films(2, 1, 1)
    asyncio.run(run_all(make_run(tmp_path, films[:2], seconds=5)))
    file = tmp_path / "record" / "videos.jsonl"
    file.write_text(file.read_text()[:-30])
    capsys.readouterr()
    run = make_run(tmp_path, films, seconds=5)
    asyncio.run(run_all(run))
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["2/3", "3/3"]
    assert len(file.read_text().splitlines()) == len(run.record.videos) == 3


def test_entries_beside_each_other_are_measured_alike(tmp_path: Path) -> None:
    run = make_run(tmp_path, choose_films(1, 0, 1), seconds=5)
    twice = replace(run, entries=[run.entries[0], replace(run.entries[0], name="again")], entries_at_once=2)
    asyncio.run(run_all(twice))
    first, second = (twice.record.of(entry, Split.TRAIN) for entry in twice.entries)
    assert [video.windows for video in first] == [video.windows for video in second] and len(first) == 1


@pytest.mark.slow
def test_one_entry_that_fails_ends_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path, choose_films(1, 0, 1), seconds=5)
    broken = replace(run.entries[0], name="broken", way=Way.STEP_FIRST, manifest=without_its_weights(run, tmp_path))
    with pytest.raises(WeightsError):
        asyncio.run(run_all(replace(run, entries=[broken, run.entries[0]], entries_at_once=2)))


def without_its_weights(run: Run, folder: Path) -> Manifest:
    empty = folder / "transformer.safetensors"
    empty.write_bytes(b"")
    return replace(run.entries[0].manifest, transformer_file=empty)


@pytest.mark.slow
def test_the_command_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--ways", "world", "--prompts", "2", "--held-out", "1", "--seeds", "1", "--seconds", "5"]
    monkeypatch.setattr(sys, "argv", ["quality", *options, "--out", str(tmp_path)])
    main()
    report = json.loads((tmp_path / "quality.json").read_text())
    assert set(report["splits"]) == {"train", "held_out"} and set(report["splits"]["train"]) == {"5"}
    assert report["splits"]["train"]["5"]["world"]["accuracy"]["mean"] > 0.7  # one of two things hides the other
    assert report["chance"] < 0.45
    assert "--held-out 1" in (tmp_path / "quality.md").read_text()
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == set(report["pictures"]) and len(pictures) == 4
    assert {path.name for path in tmp_path.iterdir()} == pictures | {"quality.md", "quality.json"}


RED_CIRCLE = Scene(
    background=Background.NIGHT,
    things=(replace(THING, shape=Shape.CIRCLE, colour=Colour.RED, size=Size.LARGE, motion=Motion.DRIFT_RIGHT),),
)
"""The prompt of the demonstration."""
GREEN_STAR = one_thing(shape=Shape.STAR, colour=Colour.GREEN, size=Size.LARGE, motion=Motion.STILL)
BLUE_CIRCLE = one_thing(shape=Shape.CIRCLE, colour=Colour.BLUE, size=Size.LARGE, motion=Motion.BOUNCE)
DRIFTS = (
    replace(RED_CIRCLE, things=(replace(RED_CIRCLE.things[0], motion=Motion.DRIFT_LEFT),)),
    one_thing(shape=Shape.STAR, colour=Colour.RED, size=Size.LARGE, motion=Motion.DRIFT_UP),
    one_thing(shape=Shape.SQUARE, colour=Colour.BLUE, size=Size.LARGE, motion=Motion.DRIFT_DOWN),
)
"""The other three directions."""
SPINS = (
    one_thing(shape=Shape.STAR, colour=Colour.YELLOW, size=Size.LARGE, motion=Motion.SPIN_CLOCKWISE),
    one_thing(shape=Shape.TRIANGLE, colour=Colour.GREEN, size=Size.LARGE, motion=Motion.SPIN_COUNTERCLOCKWISE),
)
NEVER_TRAINED = (
    one_thing(shape=Shape.SQUARE, colour=Colour.RED, size=Size.LARGE, motion=Motion.DRIFT_DOWN),
    one_thing(shape=Shape.SQUARE, colour=Colour.BLUE, size=Size.LARGE, motion=Motion.DRIFT_LEFT),
    one_thing(shape=Shape.CIRCLE, colour=Colour.YELLOW, size=Size.LARGE, motion=Motion.ORBIT_CLOCKWISE),
    one_thing(shape=Shape.STAR, colour=Colour.BLUE, size=Size.LARGE, motion=Motion.STILL),
)
"""A pair of shape and colour, or of shape and motion, is new in each."""
TRAINED = (RED_CIRCLE, *DRIFTS, GREEN_STAR, BLUE_CIRCLE, *SPINS)
SHOWN = (*TRAINED, *NEVER_TRAINED)


def make(way: Way, num_frames: int, scenes: Sequence[Scene]) -> list[Pixels]:
    """The shipped model's videos of scenes."""
    films = [Film(scene=scene, prompt=plain(scene), split=Split.TRAIN, index=0, repeat=0) for scene in scenes]

    async def film_them() -> list[Pixels]:
        async with open_source(read_entry("tiny", way, MODEL), "cpu", 1) as source:
            return [await source(film, num_frames) for film in films]

    return asyncio.run(film_them())


@pytest.fixture(scope="module")
def clips() -> list[Pixels]:
    """Four seconds of each, by the real engine."""
    return make(Way.STEP_FIRST, WINDOW_FRAMES, SHOWN)


@pytest.mark.slow
def test_other_contexts_differ_from_the_engine_s_only_where_there_is_context(clips: list[Pixels]) -> None:
    clip, first = clips[0], frames_in_block(RolloutConfig(), 0)
    assert clip.shape == (WINDOW_FRAMES, 128, 128, 3) and clip.dtype == np.uint8
    (other,) = make(Way.CONTEXT_CLEAN, first + 4, SHOWN[:1])
    apart = np.abs(other.astype(int) - clip[: first + 4])
    assert apart[:first].max() <= 1 and apart[:first].mean() < apart[first:].mean()


@pytest.mark.slow
def test_the_shipped_model_shows_its_prompts_and_goes_the_way_they_say(clips: list[Pixels]) -> None:
    assert [is_held_out(scene.things[0]) for scene in SHOWN] == [False] * len(TRAINED) + [True] * len(NEVER_TRAINED)
    found = {plain(scene): score(scene, clip) for scene, clip in zip(SHOWN, clips, strict=True)}
    assert all(one.accuracy >= 0.8 and all(one.of(Attribute.DIRECTION)) for one in found.values()), found
