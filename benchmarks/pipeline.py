"""Measures the schedule with the real engine: worker processes, tickets, hand-over and pages.

    python -m benchmarks.pipeline --picture docs/diagonal.svg --report benchmarks/reports/pipeline.md
    python -m benchmarks.pipeline --real --blocks 9
    python -m benchmarks.pipeline --devices cuda:0,cuda:1,cuda:2,cuda:3

One video runs block-first on one worker, which is the baseline, and step-first on each number of workers. On CPUs
passes sleep for ``--pass-ms``, so that the schedule is measured and not the cores; with ``--real``, and always on GPUs,
a transformer with random weights computes them. Runs stop at latents: nothing is decoded or encoded.

Makespan is read from the recorded spans. The ideal is the shortest makespan any schedule can have (``ideal_passes``),
with passes of the length asked for, or for passes that compute, of the run's own mean length: there the efficiency says
what the schedule loses, and the speed-up what fused forwards gain. Workers that compute on shared cores slow each other
unevenly; their efficiency is a rough guide.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.spans import PASSES, SpanLog
from benchmarks.timeline import chrome_trace, diagonal_svg
from engine import Engine, EngineConfig, HiarError, Manifest, Output, Pace, PromptAt, VideoRequest
from engine.config import LATENT_STRIDE_PX, Order, RolloutConfig, TransformerConfig, VideoConfig, require
from engine.engine_config import Rehearsal
from engine.law.placement import Plan
from engine.law.schedule import NUM_TRAIN_TIMESTEPS, frames_before_block
from engine.model.dit import CausalWan
from engine.trace import Phase, Span

SMALL = TransformerConfig(dim=96, ffn_dim=256, num_heads=4, num_layers=2, text_dim=64, text_len=16)
SMALL_SIZE = (96, 96)
WAN_1_3B = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)
WAN_SIZE = (832, 480)
WEIGHT_STD = 0.02
COLUMNS = ("order", "workers", "passes", "pass", "makespan", "ideal", "efficiency", "bubble", "speed-up")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all runs have in common."""

    manifest: Manifest
    """Its order is replaced by that of the run."""
    devices: tuple[str, ...]
    """A run on n workers takes the first n."""
    num_blocks: int
    rehearsal: Rehearsal | None = None
    """None when passes compute."""
    recording_file: Path | None = None
    """Noise and prompt embedding of runs that compute."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one video was seen to do."""

    setup: Setup
    order: Order
    plan: Plan
    spans: tuple[Span, ...]
    """Of this video only."""

    @property
    def stages_of_workers(self) -> tuple[int, ...]:
        """How many denoise stages each worker has that has any."""
        return tuple(len(part.stages) for part in self.plan.placements if part.stages)

    @property
    def passes(self) -> tuple[Span, ...]:
        """Denoise and cache passes."""
        return tuple(span for span in self.spans if span.phase in PASSES)

    @property
    def makespan_s(self) -> float:
        """From the beginning of the first denoise pass to the end of the last."""
        denoise = [span for span in self.spans if span.phase == Phase.DENOISE]
        return max(span.ended_s for span in denoise) - min(span.began_s for span in denoise)

    @property
    def busy_s(self) -> float:
        """Seconds of all forwards of all workers; the passes of a fused forward share its times."""
        forwards = {(span.rank, span.began_s, span.ended_s) for span in self.passes}
        return sum(ended_s - began_s for _, began_s, ended_s in forwards)

    @property
    def mean_pass_s(self) -> float:
        """Measured seconds a pass, each forward shared out evenly among its passes."""
        return self.busy_s / len(self.passes)

    @property
    def ideal_s(self) -> float:
        """The shortest makespan that passes of this length allow on these workers."""
        setup, num_stages = self.setup, self.setup.manifest.rollout.num_stages
        pass_s = setup.rehearsal.pass_s if setup.rehearsal else self.mean_pass_s
        return pass_s * ideal_passes(self.order, setup.num_blocks, num_stages, max(self.stages_of_workers))

    @property
    def efficiency(self) -> float:
        """1 when no schedule could be faster."""
        return self.ideal_s / self.makespan_s

    @property
    def bubble(self) -> float:
        """Part of the makespan in which workers with denoise stages ran no forward."""
        return 1 - self.busy_s / (len(self.stages_of_workers) * self.makespan_s)

    def cells(self, baseline: "Run") -> tuple[str, ...]:
        """Values of ``COLUMNS``."""
        return (
            self.order.value.replace("_", "-"),
            str(len(self.plan.placements)),
            str(len(self.passes)),
            f"{self.mean_pass_s * 1000:.2f} ms",
            f"{self.makespan_s:.3f} s",
            f"{self.ideal_s:.3f} s",
            f"{self.efficiency:.1%}",
            f"{self.bubble:.1%}",
            f"{baseline.makespan_s / self.makespan_s:.2f}x",
        )


def ideal_passes(order: Order, num_blocks: int, num_stages: int, stages_per_worker: int) -> int:
    """The smallest makespan, in passes of equal length, when no worker has more than ``stages_per_worker`` stages.

    Closed formulas. Block-first, with all stages on one worker: S denoise passes a block, and a cache pass for all
    blocks but the last, whose page nobody reads. Step-first: the worker with the most stages, k, needs k (2N - 1)
    passes for them; block 0 takes one pass in each stage before it reaches the worker, and block N - 1 one in each
    stage behind it: S - k together. For k = 1 that is 2N + S - 2. No schedule is faster; the tests find one as fast.
    """
    if order == Order.BLOCK_FIRST:
        return num_stages * num_blocks + num_blocks - 1
    return stages_per_worker * (2 * num_blocks - 1) + num_stages - stages_per_worker


async def measure(setup: Setup, order: Order, num_workers: int) -> Run:
    """Run one video on ``num_workers`` workers, after a shorter one that warms them up.

    Raises ``HiarError`` when the engine does not start or the video fails, ``TimeoutError`` when spans are missing.
    """
    rollout = replace(setup.manifest.rollout, order=order)
    config = EngineConfig(
        manifest=replace(setup.manifest, rollout=rollout),
        devices=setup.devices[:num_workers],
        max_videos=1,
        recording_file=setup.recording_file,
        rehearsal=setup.rehearsal,
    )
    heard = SpanLog()
    engine = Engine(config, observer=heard)
    await engine.start()
    try:
        await engine.wait_ready()
        await generate(engine, min(setup.num_blocks, rollout.window_blocks))
        video = await generate(engine, setup.num_blocks)
        num_passes = ideal_passes(order, setup.num_blocks, rollout.num_stages, rollout.num_stages)  # all there are
        spans = await heard.all_of(video, num_passes)
        facts = engine.fleet.facts
        assert facts is not None, "the engine serves"
        return Run(setup=setup, order=order, plan=facts.plan, spans=spans)
    finally:
        await engine.stop()


async def generate(engine: Engine, num_blocks: int) -> str:
    """Make a video as fast as possible, drop it, and return its id."""
    shown = engine.manifest.video
    width_px, height_px = shown.sizes[0]
    request = VideoRequest(
        prompts=(PromptAt(at_s=0, text="a red ball"),),
        width_px=width_px,
        height_px=height_px,
        fps=shown.fps,
        seconds=frames_before_block(engine.manifest.rollout, num_blocks) / shown.fps,
        pace=Pace.FAST,
        output=Output.LATENTS,
    )
    video = await engine.open(request)
    async for _ in video.read():
        pass
    return video.id


def random_setup(folder: Path, manifest: Manifest, devices: tuple[str, ...], num_blocks: int) -> Setup:
    """A setup that computes, with random weights, noise and prompt embedding written to ``folder``."""
    torch.manual_seed(0)
    rollout, sizes = manifest.rollout, manifest.transformer
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CausalWan(sizes).state_dict().items()}
    weights = {name: torch.empty(shape, dtype=torch.bfloat16).normal_(std=WEIGHT_STD) for name, shape in shapes.items()}
    # Norms keep their scale: random ones would let the latents fade out or explode.
    weights |= {name: torch.ones_like(weights[name]) for name in weights if ".norm" in name and name.endswith("weight")}
    save_file(weights, manifest.transformer_file)
    width_px, height_px = manifest.video.sizes[0]
    size = (sizes.in_dim, height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX)
    names = ["initial_noise", *(f"renoise.{stage}" for stage in range(rollout.num_stages - 1))]
    recording = {name: torch.randn(num_blocks * rollout.latent_frames_per_block, *size) for name in names}
    recording["context"] = torch.randn(sizes.text_len, sizes.text_dim)
    recording_file = folder / "recording.safetensors"
    save_file(recording, recording_file)
    return Setup(manifest=manifest, devices=devices, num_blocks=num_blocks, recording_file=recording_file)


def manifest_of(num_stages: int, transformer: TransformerConfig, size_px: tuple[int, int], folder: Path) -> Manifest:
    """A model that stops at latents; its steps divide the noise schedule evenly. ``size_px`` is (width, height)."""
    steps = tuple(NUM_TRAIN_TIMESTEPS - NUM_TRAIN_TIMESTEPS * stage // num_stages for stage in range(num_stages))
    return Manifest(
        name="pipeline",
        transformer=transformer,
        rollout=RolloutConfig(denoising_steps=steps),
        video=VideoConfig(sizes=(size_px,)),
        transformer_file=folder / "transformer.safetensors",
        dtype="bfloat16",
    )


def report(baseline: Run, runs: list[Run], arguments: list[str]) -> str:
    """The table as Markdown, with what is needed to repeat it."""
    setup = baseline.setup
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(run.cells(baseline) for run in (baseline, *runs))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    width_px, height_px = setup.manifest.video.sizes[0]
    slept = setup.rehearsal
    passes = f"passes sleep {slept.pass_s * 1000:g} ms" if slept else "passes compute, with random weights"
    device = torch.cuda.get_device_name(setup.devices[0]) if setup.devices[0] != "cpu" else "CPU"
    return f"""# The schedule, measured

    python -m benchmarks.pipeline {" ".join(arguments)}

One video of {setup.num_blocks} blocks, {width_px}x{height_px}; {setup.manifest.rollout.num_stages} stages; {passes}.

{table}

* *pass*: seconds of all forwards over number of passes, as measured.
* *makespan*: from the beginning of the first denoise pass to the end of the last.
* *ideal*: the shortest makespan of any schedule, with passes of the length {"asked for" if slept else "measured"}.
* *efficiency*: ideal / makespan.
* *bubble*: part of the makespan in which the workers that denoise ran no forward.
* *speed-up*: over block-first on one worker.

Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores; workers on {device}.
"""


def main() -> None:
    """Command line."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="hiar-pipeline-") as folder:
        try:
            setup = _setup(arguments, Path(folder))
            counts = _worker_counts(arguments, setup)
            baseline = asyncio.run(measure(setup, Order.BLOCK_FIRST, 1))
            runs: list[Run] = []
            _print_row(COLUMNS)
            _print_row(baseline.cells(baseline))
            for num_workers in counts:
                runs.append(asyncio.run(measure(setup, Order.STEP_FIRST, num_workers)))
                _print_row(runs[-1].cells(baseline))
        except (HiarError, ValueError, OSError) as error:
            sys.exit(f"pipeline: {error}")
    _write(arguments, baseline, runs)


def _write(arguments: argparse.Namespace, baseline: Run, runs: list[Run]) -> None:
    spans = next((run.spans for run in runs if len(run.plan.placements) == arguments.stages), ())
    if arguments.trace:
        arguments.trace.write_text(json.dumps(chrome_trace(spans)))
    if arguments.picture:
        title = f"Step-first: {arguments.stages} stages on {arguments.stages} workers"
        arguments.picture.write_text(diagonal_svg(spans, title))
    if arguments.report:
        arguments.report.write_text(report(baseline, runs, sys.argv[1:]))


def _print_row(cells: tuple[str, ...]) -> None:
    print("".join(f"{cell:>12}" for cell in cells), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=27, help="blocks of the video (default: 27)")
    parser.add_argument("--stages", type=int, default=4, help="denoise stages (default: 4)")
    parser.add_argument("--pass-ms", type=float, default=50, help="length of a pass that sleeps (default: 50)")
    parser.add_argument("--workers", help="worker counts, as in 1,2,4 (default: 1 to stages + 1, or to the last GPU)")
    parser.add_argument("--devices", default="cpu", help="cpu, or GPUs as in cuda:0,cuda:1 (default: cpu)")
    parser.add_argument("--real", action="store_true", help="compute passes on the CPU too, with a small model")
    parser.add_argument("--layers", type=int, help="layers of the transformer (default: 30 on GPUs, 2 on CPUs)")
    parser.add_argument("--size", help="picture size (default: 832x480 on GPUs, 96x96 on CPUs)")
    parser.add_argument("--trace", type=Path, help="write the run on as many workers as stages for Perfetto (JSON)")
    parser.add_argument("--picture", type=Path, help="draw that run (SVG)")
    parser.add_argument("--report", type=Path, help="write the table (Markdown)")
    return parser.parse_args()


def _setup(arguments: argparse.Namespace, folder: Path) -> Setup:
    """What the options ask for. Raises ``ValueError`` when they make no sense."""
    require(arguments.blocks >= 1 and arguments.stages >= 1, "--blocks and --stages must be at least 1")
    on_cpu = arguments.devices == "cpu"
    devices = ("cpu",) * (arguments.stages + 1) if on_cpu else tuple(arguments.devices.split(","))
    transformer, size_px = (SMALL, SMALL_SIZE) if on_cpu else (WAN_1_3B, WAN_SIZE)
    if arguments.layers is not None:
        transformer = replace(transformer, num_layers=arguments.layers)
    if arguments.size is not None:
        width, _, height = arguments.size.partition("x")
        require(width.isdigit() and height.isdigit(), f"--size {arguments.size} is not like 832x480")
        size_px = (int(width), int(height))
    manifest = manifest_of(arguments.stages, transformer, size_px, folder)
    if arguments.real or not on_cpu:
        return random_setup(folder, manifest, devices, arguments.blocks)
    rehearsal = Rehearsal(pass_s=arguments.pass_ms / 1000)
    return Setup(manifest=manifest, devices=devices, num_blocks=arguments.blocks, rehearsal=rehearsal)


def _worker_counts(arguments: argparse.Namespace, setup: Setup) -> list[int]:
    """Worker counts of the step-first runs. Raises ``ValueError`` for one that no chain can use."""
    most = min(arguments.stages + 1, len(setup.devices))
    asked = arguments.workers
    counts = [int(count) for count in asked.split(",")] if asked else list(range(1, most + 1))
    require(all(1 <= count <= most for count in counts), f"--workers {counts} leaves 1..{most}")
    drawn = not (arguments.trace or arguments.picture) or arguments.stages in counts
    require(drawn, f"--trace and --picture show {arguments.stages} workers, which are not among --workers {counts}")
    return counts


if __name__ == "__main__":
    main()
