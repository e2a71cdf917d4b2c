"""The decoders on a stream of blocks, from latents to the planes that an encoder takes, with random weights.

Letters: F latent frames of a block, C channels, Y and X latent height and width, T frames.
"""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.gpu.ceilings import copy_rate
from benchmarks.gpu.passes import captures_of
from benchmarks.gpu.record import Bar, Panel, Section, Table
from benchmarks.gpu.timing import Bench
from engine.config import DecoderConfig
from engine.model.decode_graph import GraphedDecoder
from engine.model.decoder import Decoder, build_decoder, store_channels_last
from kernels.yuv.formula import rgb_to_yuv420p

COLUMNS = ("decoder", "what", "median ms", "p95 ms", "frames/s")
WHOLE = "decode, planes, to the host"
"""Replayed where that runs."""
SETTLED_BLOCKS = 2
"""Blocks decoded before the timed one: the first of a stream is shorter than the others."""


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``; leaves the seconds a block for what is derived from them."""
    rows: list[tuple[str, str, float, float, float]] = []
    memory: list[tuple[str, float, float, float]] = []
    with torch.inference_mode():
        for name, config in bench.sizes.decoders.items():
            if bench.left_s() <= 0:
                section.skip(name, "no time left")
                continue
            found = section.attempt(name, partial(_measure_decoder, bench, section, name, config))
            if found:
                rows += found[0]
                memory.append(found[1])
        section.attempt("rgb_to_yuv420p", lambda: _measure_colours(bench, section))
    width_px, height_px = bench.sizes.size_px
    section.tables.append(Table(f"Streaming, {width_px}x{height_px}, a block a call", COLUMNS, tuple(rows)))
    columns = ("decoder", "weights GB", "state of a video GB", "peak beyond what stays GB")
    section.tables.append(Table("Memory of the decoders", columns, tuple(memory)))
    bars = tuple(Bar(f"{name}, {what}", rate, ours=True) for name, what, _, _, rate in rows)
    section.panels.append(Panel("Decoders", "frames/s", bars))


def _measure_decoder(
    bench: Bench, section: Section, name: str, config: DecoderConfig
) -> tuple[list[tuple[str, str, float, float, float]], tuple[str, float, float, float]]:
    torch.manual_seed(0)
    with torch.device(bench.device):
        decoder = build_decoder(config).to(bench.dtype).eval().requires_grad_(False)
    if bench.on_gpu:
        store_channels_last(decoder)  # as weights are loaded on a GPU
    latents_FCYX = torch.randn(bench.sizes.latent_shape, dtype=bench.dtype, device=bench.device)
    state = None
    for _ in range(SETTLED_BLOCKS):
        pixels_TCHW, state = decoder.decode(latents_FCYX, state)
    assert state is not None
    num_frames = len(pixels_TCHW)
    graphed = partial(GraphedDecoder, decoder, [bench.sizes.latent_shape], bench.device, captures_of(bench))
    replayed = section.attempt(f"{name}, replayed", graphed)
    used: Decoder = replayed or decoder
    works: dict[str, Callable[[], object]] = {"decode": lambda: decoder.decode(latents_FCYX, state)}
    if replayed:
        works["decode, replayed"] = lambda: replayed.decode(latents_FCYX, state)
    works[WHOLE] = lambda: rgb_to_yuv420p(used.decode(latents_FCYX, state)[0]).cpu()
    resting = _allocated(bench)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    timings = bench.interleaved(works)
    # What the timing itself holds beside the work is taken off.
    peak = torch.cuda.max_memory_allocated(bench.device) - resting - bench.sizes.flush_bytes if bench.on_gpu else 0
    rows = []
    for what, timing in timings.items():
        rate = num_frames / timing.median_s
        print(f"decoders {name}, {what}: {timing.median_s * 1e3:.1f} ms a block, {rate:.0f} frames/s", flush=True)
        rows.append((name, what, timing.median_s * 1e3, timing.p95_s * 1e3, rate))
    bench.decode_s[name] = timings[WHOLE].median_s
    weights = sum(parameter.nbytes for parameter in decoder.parameters())
    return rows, (name, weights / 1e9, state.num_bytes / 1e9, peak / 1e9)


def _measure_colours(bench: Bench, section: Section) -> None:
    frames, _, rows, columns = bench.sizes.latent_shape
    pixels_TCHW = torch.rand(4 * frames, 3, 8 * rows, 8 * columns, device=bench.device)
    planes = rgb_to_yuv420p(pixels_TCHW)
    num_bytes = pixels_TCHW.nbytes + planes.nbytes
    timing = bench.interleaved({"planes": lambda: rgb_to_yuv420p(pixels_TCHW)})["planes"]
    rate = num_bytes / timing.median_s
    print(f"decoders rgb_to_yuv420p: {rate / 1e9:.0f} GB/s", flush=True)
    row = (num_bytes / 1e6, timing.median_s * 1e3, rate / 1e9, rate / copy_rate(bench))
    section.tables.append(Table("rgb_to_yuv420p of a block", ("MB", "median ms", "GB/s", "of a copy"), (row,)))


def _allocated(bench: Bench) -> int:
    if not bench.on_gpu:
        return 0
    bench.finish()
    return torch.cuda.memory_allocated(bench.device)
