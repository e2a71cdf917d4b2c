"""Measures how well generated videos show their prompts, how much they move, and whether they drift.

    python -m training.quality --prompts 24 --held-out 12 --seeds 3
    python -m training.quality --ways world,step_first --seconds 20 --prompts 8 --seeds 1
    python -m training.quality --against "without FKL=runs/no-fkl:step_first" --device cuda:0
    python -m training.quality --at-once 2 --threads 1

Prompts come from the world that the small model is trained on. Ways: ``world`` (rendered from the scene), the engine's
``step_first`` and ``block_first``, and ``context_current`` and ``context_clean`` (step-first with another context, by a
roll-out). Only the longest video is made; the shorter lengths are its beginning. A run that was cut off goes on where
it stopped. Writes quality.md, quality.json and pictures.
"""

import argparse
import asyncio
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.machine import describe as describe_machine
from engine import HiarError
from engine.manifest import MANIFEST_NAME
from training.quality.films import Film, choose_films
from training.quality.pictures import save_curves, save_sheet
from training.quality.record import Record, digest
from training.quality.report import Report, as_markdown
from training.quality.running import Lengths, Run, chance_accuracy, run_all, strip_file
from training.quality.sources import Entry, Way, read_entry
from training.quality.summary import Summary, summarise
from training.world import Split

REPORTS = Path(__file__).parents[1] / "reports"
DEFAULT_WAYS = (Way.WORLD, Way.STEP_FIRST, Way.BLOCK_FIRST)


def main() -> None:
    """Command line."""
    arguments = _arguments()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    try:
        run = _plan(arguments)
        asyncio.run(run_all(run))
        _write(run, arguments)
    except (HiarError, ValueError, OSError) as error:
        sys.exit(f"quality: {error}")
    shutil.rmtree(run.record.folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="model folder (default: %(default)s)")
    parser.add_argument("--ways", default=",".join(DEFAULT_WAYS), help="how videos are made (default: %(default)s)")
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME=FOLDER:WAY", help="one more model; may be repeated"
    )
    parser.add_argument("--prompts", type=int, default=12, help="prompts of trained combinations (default: 12)")
    parser.add_argument("--held-out", type=int, default=0, help="prompts of combinations never trained (default: 0)")
    parser.add_argument("--seeds", type=int, default=2, help="videos of each prompt (default: 2)")
    parser.add_argument("--seconds", default="20,60", help="lengths, multiples of the shortest (default: 20,60)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of each way (default: all)")
    parser.add_argument("--at-once", type=int, default=1, help="ways or models that run beside each other (default: 1)")
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder of the report (default: training/reports)")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Run:
    """Raises ``ValueError`` for what cannot be asked for and ``StartError`` for a folder without a model."""
    entries = [read_entry(way, Way(way), arguments.model) for way in arguments.ways.split(",")]
    for against in arguments.against:
        name, _, rest = against.partition("=")
        folder, _, way = rest.rpartition(":")
        entries.append(read_entry(name, Way(way), Path(folder)))
    films = choose_films(arguments.prompts, arguments.held_out, arguments.seeds)
    if not films or len({entry.name for entry in entries}) < len(entries):
        raise ValueError("there is no prompt" if not films else "two entries share a name")
    lengths = Lengths(seconds=tuple(sorted(int(length) for length in arguments.seconds.split(","))))
    name = f"quality-partial-{digest(entries, lengths)}"
    return Run(
        entries=entries,
        films=films,
        lengths=lengths,
        device=arguments.device,
        num_threads=arguments.threads,
        record=Record(arguments.out / name),
        entries_at_once=arguments.at_once,
    )


def _write(run: Run, arguments: argparse.Namespace) -> None:
    splits = {film.split: None for film in run.films}
    results = {split: {seconds: _summaries(run, split, seconds) for seconds in run.lengths.seconds} for split in splits}
    pictures = [_curves(run, results[split], split, arguments.out) for split in splits]
    pictures += [_sheet(run, split, arguments.out) for split in splits]
    report = Report(
        command=shlex.join(["python", "-m", "training.quality", *sys.argv[1:]]),
        machine=_machine(torch.device(arguments.device)),
        model={entry.name: _origin(entry) for entry in run.entries},
        num_prompts={Split.TRAIN: arguments.prompts, Split.HELD_OUT: arguments.held_out},
        num_seeds=arguments.seeds,
        window_s=run.lengths.window_s,
        chance=chance_accuracy(run.lengths.window_s, run.entries[0].manifest.video.fps),
        splits=results,
        pictures=pictures,
    )
    (arguments.out / "quality.md").write_text(as_markdown(report))
    (arguments.out / "quality.json").write_text(json.dumps(report.as_json(), indent=1) + "\n")
    print(as_markdown(report))


def _summaries(run: Run, split: Split, seconds: int) -> dict[str, Summary]:
    keys = {film.key for film in run.films}
    wanted = {entry.name: [v for v in run.record.of(entry, split) if v.film in keys] for entry in run.entries}
    return {name: summarise(videos, run.lengths.num_windows(seconds)) for name, videos in wanted.items()}


def _curves(run: Run, lengths: dict[int, dict[str, Summary]], split: Split, folder: Path) -> str:
    seconds = max(run.lengths.seconds)
    name = f"quality-curves-{split.replace('_', '-')}.png"
    save_curves(folder / name, f"{seconds} s, five segments; {split.replace('_', '-')} prompts", lengths[seconds])
    return name


def _sheet(run: Run, split: Split, folder: Path) -> str:
    name = f"quality-sheet-{split.replace('_', '-')}.png"
    shown: Sequence[Film] = [film for film in run.films if film.split is split]
    strips = [strip_file(run.record, entry, film) for film in shown for entry in run.entries]
    save_sheet(folder / name, [strip for strip in strips if strip.is_file()])
    return name


def _origin(entry: Entry) -> str:
    """Where an entry's weights come from, as its manifest says."""
    if entry.way is Way.WORLD:
        return "the world itself, no model"
    file = entry.folder / MANIFEST_NAME
    training = json.loads(file.read_text()).get("training", {}) if file.is_file() else {}
    return f"{entry.manifest.name}, {entry.way}, weights: {training.get('weights', 'of unknown origin')}"


def _machine(device: torch.device) -> str:
    facts = describe_machine(device)
    return "; ".join([*(f"{name} {value}" for name, value in facts.items()), f"{os.cpu_count()} CPU cores"])


if __name__ == "__main__":
    main()
