"""Frames a second that follow from the measured passes: arithmetic, nothing is run (spec section 4.5; the planner)."""

from collections.abc import Mapping

from benchmarks.gpu.record import Bar, Cell, Headline, Panel, Section, Table
from benchmarks.gpu.timing import Bench, PassTimes
from engine.config import RolloutConfig
from engine.law.placement import PassCosts, place
from engine.law.schedule import frames_before_block, frames_in_block

NO_DECODER = "none"
DEVICE_COUNTS = (1, 2, 4, 5, 8)
GOAL_DEVICES = 4
GOAL = 60.0
"""Frames a second of one stream on four GPUs, decoding included."""
VIDEO_BLOCKS = 27
"""A video of 321 frames, 20 s."""


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section`` from what ``passes`` and ``decoders`` left."""
    times, rollout = bench.passes, bench.sizes.rollout
    if times is None or not times.stages_s:
        section.skip("all rates", "they follow from the passes, which were not all measured")
        return
    decoders = {NO_DECODER: 0.0, **bench.decode_s}
    for name in bench.sizes.decoders:
        if name not in decoders:
            section.skip(f"rates with the {name}", "it was not measured")
    section.notes.append(
        "Derived from measured passes over a full window, not run as a stream. Blocks before the window is full cost "
        "less; encoding has a thread of its own, and hand-over and text encoding are left out."
    )
    section.tables.append(one_device(rollout, times, decoders))
    section.tables.append(whole_video(rollout, times))
    section.tables.append(placed(rollout, times, decoders))
    rows = [row for row in section.tables[-1].rows if row[0] == 1 or row[1] != NO_DECODER]
    bars = tuple(Bar(f"GPUs: {row[0]}, decoder: {row[1]}", float(row[-1]), ours=True) for row in rows)
    section.panels.append(Panel("Predicted rate", "frames/s", bars))
    for row in section.tables[-1].rows:
        if row[0] == GOAL_DEVICES and row[1] != NO_DECODER:
            what = f"{GOAL_DEVICES} GPUs with the {row[1]}: predicted frames/s"
            section.headlines.append(Headline(what, float(row[-1]), GOAL))
    for row in (row for table in section.tables for row in table.rows):
        print("rates " + ", ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row), flush=True)


def block_seconds(num_stages: int, times: PassTimes) -> dict[str, tuple[str, float]]:
    """Formula and seconds of one block on one device in the steady state, by way of running it."""
    d, c, fused = times.denoise_s, times.cache_s, times.stages_s[0]
    plain_d, plain_c = times.baseline_denoise_s, times.baseline_cache_s
    s = num_stages
    return {
        "plain PyTorch, block-first": (f"{s} D + C", s * plain_d + plain_c),
        "plain PyTorch, step-first": (f"{s} (D + C)", s * (plain_d + plain_c)),
        "ours, block-first": (f"(C+D) + {s - 1} D", fused + (s - 1) * d),
        "ours, step-first, one pass a forward": (f"{s} (D + C)", s * (d + c)),
        "ours, step-first, one stage a forward": (f"{s} (C+D)", s * fused),
        "ours, step-first, all stages at once": (f"C+D of {s} stages", times.stages_s[-1]),
    }


def one_device(rollout: RolloutConfig, times: PassTimes, decoders: Mapping[str, float]) -> Table:
    """Steady rates on one device; decoding takes its turn on it."""
    frames = frames_in_block(rollout, 1)
    ways = block_seconds(rollout.num_stages, times)
    plain_s = ways["plain PyTorch, step-first"][1]
    rows: list[tuple[Cell, ...]] = []
    for way, (formula, block_s) in ways.items():
        rates = [frames / (block_s + decode_s) for decode_s in decoders.values()]
        rows.append((way, formula, block_s * 1e3, plain_s / block_s, *rates))
    by_decoder = [f"frames/s, decoder: {name}" for name in decoders]
    columns = ("way", "passes of a block", "denoising ms a block", "speed / plain step-first", *by_decoder)
    return Table("One GPU, steady state", columns, tuple(rows))


def whole_video(rollout: RolloutConfig, times: PassTimes) -> Table:
    """Makespans of a video by the formulas of spec section 4.5, every pass over a full window, without decoding."""
    n, s, d, c = VIDEO_BLOCKS, rollout.num_stages, times.denoise_s, times.cache_s
    fused, at_once = times.stages_s[0], times.stages_s[-1]
    plain_d, plain_c = times.baseline_denoise_s, times.baseline_cache_s
    spans = (
        ("block-first, 1 GPU", f"{s}N D + (N - 1) C", s * n * d + (n - 1) * c),
        ("step-first, 1 GPU", f"{s} (N D + (N - 1) C)", s * (n * d + (n - 1) * c)),
        ("step-first, 1 GPU, all stages at once", f"(N - 1) (C+D of {s} stages) + {s} D", (n - 1) * at_once + s * d),
        (
            f"step-first, {s} GPUs, plain PyTorch",
            f"{s} D + (N - 1) (C + D)",
            s * plain_d + (n - 1) * (plain_c + plain_d),
        ),
        (f"step-first, {s} GPUs", f"{s} D + (N - 1) (C + D)", s * d + (n - 1) * (c + d)),
        (f"step-first, {s} GPUs, first stage fused", f"{s} D + (N - 1) (C+D)", s * d + (n - 1) * fused),
    )
    block_first_s, frames = spans[0][2], frames_before_block(rollout, n)
    rows = tuple((way, formula, took_s, frames / took_s, block_first_s / took_s) for way, formula, took_s in spans)
    columns = ("way", "formula", "s", "frames/s", "speed / block-first")
    return Table(f"A video of N = {n} blocks ({frames} frames)", columns, rows)


def placed(rollout: RolloutConfig, times: PassTimes, decoders: Mapping[str, float]) -> Table:
    """What the planner predicts for several devices like this one."""
    frames, rows = frames_in_block(rollout, 1), []
    for name, decode_s in decoders.items():
        costs = PassCosts(denoise_s=times.stages_s, decode_s=decode_s)
        for count in DEVICE_COUNTS:
            plan = place(rollout, tuple(f"cuda:{index}" for index in range(count)), costs)
            parts = " + ".join(_share(len(part.stages), part.decodes and name != NO_DECODER) for part in plan.chains[0])
            block_s = plan.block_s(0)
            rate = sum(frames / plan.block_s(chain) for chain in range(len(plan.chains)))
            rows.append((count, name, len(plan.chains), parts, block_s * 1e3, rate))
    columns = ("GPUs", "decoder", "chains", "stages of each GPU of a chain", "ms a block", "frames/s")
    return Table("Predicted by the planner", columns, tuple(rows))


def _share(num_stages: int, decodes: bool) -> str:
    return f"{num_stages} and decode" if decodes else str(num_stages)
