"""Makes and measures the videos of a run and keeps what was measured; those of an entry one after another.

Letters: T frames.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from numpy.random import default_rng

from engine.config import require
from training.quality.backdrop import Pixels
from training.quality.checker import compare, read
from training.quality.films import Film
from training.quality.measures import flicker, measure
from training.quality.pictures import save_strip
from training.quality.record import Record, Video
from training.quality.sources import Entry, open_source
from training.quality.summary import NUM_SEGMENTS
from training.render import render
from training.world import draw_scene

SHEET_PROMPTS = 6
"""Prompts of each split that the contact sheet shows."""
CHANCE_SCENES = 40
CHANCE_SEED = 712


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The lengths that are reported. Raises ``ValueError`` where one is no multiple of the shortest."""

    seconds: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that windows of the shortest fill all."""
        require(len(self.seconds) > 0 and min(self.seconds) > 0, f"lengths {self.seconds} s: needed positive ones")
        for length in self.seconds:
            require(
                length % min(self.seconds) == 0, f"{length} s is no multiple of the shortest, {min(self.seconds)} s"
            )

    @property
    def window_s(self) -> float:
        """A segment of the shortest video; longer segments are whole numbers of windows."""
        return min(self.seconds) / NUM_SEGMENTS

    def num_windows(self, seconds: int) -> int:
        """Windows of a video of this length."""
        return NUM_SEGMENTS * seconds // min(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is to be done."""

    entries: Sequence[Entry]
    films: Sequence[Film]
    lengths: Lengths
    device: str
    num_threads: int | None
    record: Record
    entries_at_once: int = 1

    @property
    def num_done(self) -> int:
        """Videos that the record has."""
        return sum(self.record.has(entry, film) for entry in self.entries for film in self.films)


async def run_all(run: Run) -> None:
    """Make and measure every video that the record lacks; one line of progress each.

    Raises:
        HiarError: the engine refuses a model or fails at a video.
    """
    free = asyncio.Semaphore(run.entries_at_once)
    tasks = [asyncio.create_task(_run_entry(run, entry, free)) for entry in run.entries]
    try:
        await asyncio.gather(*tasks)
    finally:  # one has failed: no engine of the others stays behind
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_entry(run: Run, entry: Entry, free: asyncio.Semaphore) -> None:
    """The videos of one entry, one after another, when it is its turn."""
    async with free:
        missing = [film for film in run.films if not run.record.has(entry, film)]
        if not missing:
            return
        async with open_source(entry, run.device, run.num_threads) as source:
            for film in missing:
                began = time.monotonic()
                frames = await source(film, round(max(run.lengths.seconds) * entry.manifest.video.fps))
                made_in_s = time.monotonic() - began
                video = await asyncio.to_thread(examine, run, entry, film, frames, made_in_s)
                run.record.add(video)
                print(f"{run.num_done:4d}/{len(run.entries) * len(run.films)}  {_line(video, film)}", flush=True)


def examine(run: Run, entry: Entry, film: Film, frames_THW3: Pixels, made_in_s: float) -> Video:
    """Measure a video; keep a few of its pictures if the contact sheet shows it."""
    num_windows = run.lengths.num_windows(max(run.lengths.seconds))
    cuts = [round(n * run.lengths.window_s * entry.manifest.video.fps) for n in range(num_windows + 1)]
    if film.repeat == 0 and film.index < SHEET_PROMPTS:
        save_strip(strip_file(run.record, entry, film), f"{entry.name}: {film.prompt}", frames_THW3)
    return Video(
        entry=entry.name,
        film=film.key,
        split=film.split,
        repeat=film.repeat,
        windows=tuple(measure(film.scene, frames_THW3[a:b]) for a, b in pairwise(cuts)),
        flicker=flicker(frames_THW3, entry.manifest.rollout),
        made_in_s=made_in_s,
    )


def strip_file(record: Record, entry: Entry, film: Film) -> Path:
    """Where a few pictures of a video are."""
    return record.folder / f"{film.key}-{entry.name.replace('/', '-')}.png"


def chance_accuracy(window_s: float, fps: int) -> float:
    """The accuracy of the world's own videos of other scenes than those asked for."""
    rng = default_rng(CHANCE_SEED)
    scenes = [draw_scene(rng) for _ in range(CHANCE_SCENES)]
    readings = [read(render(scene, 0, round(window_s * fps))) for scene in scenes]
    scores = [compare(scene, reading) for scene, reading in zip(scenes, [readings[-1], *readings[:-1]], strict=True)]
    return sum(score.accuracy for score in scores) / len(scores)


def _line(video: Video, film: Film) -> str:
    accuracy = sum(window.accuracy for window in video.windows) / len(video.windows)
    flow_px = sum(window.flow_px for window in video.windows) / len(video.windows)
    head = f"{video.entry}  accuracy {accuracy:.2f}  flow {flow_px:.2f} px  made in {video.made_in_s:.1f} s"
    return f"{head}  seed {film.seed}: {film.prompt}"
