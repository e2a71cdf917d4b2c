"""Passes of the transformer with random weights over a full window, ours and the plain PyTorch baseline, in turns.

Every stage has its own pages, as in the engine, where memory allows. Pages, weights and latents hold random numbers:
zeros draw less power, and clocks would be higher than in use.

Letters: G segments, F latent frames, C latent channels, Y and X latent height and width, T prompt rows, P pages.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.baseline import Baseline, BaselineCache
from benchmarks.gpu.profile import profile_forward
from benchmarks.gpu.record import Bar, Headline, Panel, Section, Table
from benchmarks.gpu.timing import Bench, PassTimes, Timing
from engine.config import TransformerConfig
from engine.model.capture import Captures, cuda_graphs
from engine.model.dit import CausalWan
from engine.model.graphs import GraphedWan
from engine.model.segments import PagedCache, SegmentBatch, TextContext
from engine.stage.pages import page_bytes

DENOISE_TIMESTEP, CACHE_TIMESTEP = 937.5, 833.3333
"""Of the second stage."""
RESERVE_BYTES = 16 << 30
"""Kept free of pages, for activations, captured forwards and the baseline's cache of one stage."""
GOAL = 1.5
"""Of the baseline's speed, all stages on one GPU."""
D, C, BASELINE_D, BASELINE_C = "D", "C", "baseline D", "baseline C"
REPLAYED = ", replayed"
"""Ends the name of a forward that is a CUDA graph, as the engine runs it on a GPU."""
Network = Callable[[SegmentBatch, PagedCache], Tensor]
COLUMNS = ("forward", "segments", "median ms", "p95 ms", "ms a segment", "TFLOP/s", "baseline's time / ours", "runs")


@dataclass(frozen=True)
class Steady:
    """A model whose windows are full: what a stage looks like in the middle of a long video."""

    model: CausalWan
    cache: PagedCache
    context: TextContext
    windows: tuple[tuple[int, ...], ...]
    """For each stage the pages of the blocks before its own, oldest first."""
    own_pages: tuple[int, ...]
    """For each stage the page its cache pass writes."""

    def batch(self, bench: Bench, num_cache: int, num_denoise: int) -> SegmentBatch:
        """C(b) of the first stages and D(b + 1) of as many, which sees the page that C(b) writes; D(b) without any."""
        count, newest = num_cache + num_denoise, bench.sizes.rollout.window_blocks
        latents = torch.randn(count, *bench.sizes.latent_shape, dtype=self.model.dtype, device=bench.device)
        steps = [CACHE_TIMESTEP] * num_cache + [DENOISE_TIMESTEP] * num_denoise
        blocks = [newest] * num_cache + [newest + (num_cache > 0)] * num_denoise
        behind = [
            (*self.windows[s][1:], self.own_pages[s]) if num_cache else self.windows[s] for s in range(num_denoise)
        ]
        return SegmentBatch(
            latents_GFCYX=latents,
            timesteps_G=torch.tensor(steps, dtype=torch.float32, device=bench.device),
            starts_G=torch.tensor(blocks, device=bench.device) * bench.sizes.latent_shape[0],
            contexts=(self.context,) * count,
            page_lists=(*self.windows[:num_cache], *behind),
            write_pages=self.own_pages[:num_cache],
        )


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``; leaves the pass times for what is derived from them."""
    section.notes.append("A replayed forward is a CUDA graph, as in the engine; what is derived here is about those.")
    with torch.inference_mode():
        print("passes: random weights", flush=True)
        model = random_model(bench.sizes.transformer, bench.device, bench.dtype)
        embedding_TX = torch.randn(bench.sizes.prompt_tokens, bench.sizes.transformer.text_dim)
        section.attempt("agreement with the baseline", lambda: _agree(bench, section, model, embedding_TX))
        steady = make_steady(bench, section, model, embedding_TX)
        plain = _runnable(section, _baseline_works(bench, model, embedding_TX))
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats(bench.device)
        ours = _runnable(section, our_works(bench, steady, model))
        _report_memory(bench, section, steady)
        captured = {name + REPLAYED: work for name, work in our_works(bench, steady, replayed(bench, model)).items()}
        ours |= _runnable(section, captured)
        _report_times(bench, section, bench.interleaved(ours | plain))
        profiled = ours.get(stage_name(1) + REPLAYED, ours.get(stage_name(1)))
        if profiled is not None:
            section.attempt("profile", partial(profile_forward, bench, section, profiled))


def random_model(config: TransformerConfig, device: torch.device, dtype: torch.dtype) -> CausalWan:
    """A transformer whose activations keep their size, built on ``device`` without a copy on the host."""
    with torch.device("meta"):
        model = CausalWan(config).to(dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".norm" in name and name.endswith("weight"):
            parameter.fill_(1.0)
            continue
        fan_in = parameter[0].numel() if parameter.ndim > 1 and "modulation" not in name else config.dim
        parameter.normal_(std=fan_in**-0.5, generator=generator)
    return model


def make_steady(bench: Bench, section: Section, model: CausalWan, embedding_TX: Tensor) -> Steady:
    """Full windows of every stage in one pool, their pages in random order."""
    rollout, config = bench.sizes.rollout, bench.sizes.transformer
    num_stages, behind = rollout.num_stages, rollout.window_blocks - 1
    sets = num_stages
    if bench.on_gpu:
        one = page_bytes(config.num_layers, bench.sizes.block_tokens, config.num_heads, config.head_dim, bench.dtype)
        free = torch.cuda.mem_get_info(bench.device)[0] - RESERVE_BYTES - num_stages * one
        sets = max(1, min(num_stages, free // (behind * one)))
    if sets < num_stages:
        section.notes.append(f"Memory has room for the windows of {sets} stages; the {num_stages} stages share them.")
    num_pages = sets * behind + num_stages
    order = list(range(num_pages))
    random.Random(0).shuffle(order)
    shape = (config.num_layers, num_pages, bench.sizes.block_tokens, config.num_heads, config.head_dim)
    keys, values = (torch.empty(shape, dtype=bench.dtype, device=bench.device).normal_() for _ in range(2))
    return Steady(
        model=model,
        cache=PagedCache(keys, values),
        context=model.encode_context(embedding_TX),
        windows=tuple(tuple(order[s % sets * behind :][:behind]) for s in range(num_stages)),
        own_pages=tuple(order[sets * behind :]),
    )


def replayed(bench: Bench, model: CausalWan, window_blocks: int | None = None) -> GraphedWan:
    """The model as the engine runs it on a GPU; without one, with the same buffers and no graphs."""
    window_pages = (window_blocks or bench.sizes.rollout.window_blocks) - 1
    max_segments = 2 * bench.sizes.rollout.num_stages
    return GraphedWan(model, window_pages=window_pages, max_segments=max_segments, captures=captures_of(bench))


def captures_of(bench: Bench) -> Captures:
    """CUDA graphs; without a GPU, plain calls."""
    return cuda_graphs(bench.device) if bench.on_gpu else Captures(lambda work: work)


def captured(network: GraphedWan, batch: SegmentBatch, cache: PagedCache) -> Callable[[], Tensor]:
    """A forward that is replayed."""
    network.capture(batch, cache)
    return partial(network, batch, cache)


def our_works(bench: Bench, steady: Steady, network: Network) -> dict[str, Callable[[], Tensor]]:
    """Our forwards, by name: both passes alone, and 1 .. S stages at once."""
    shapes = {D: (0, 1), C: (1, 0)}
    shapes |= {stage_name(k): (k, k) for k in range(1, bench.sizes.rollout.num_stages + 1)}
    batches = {name: steady.batch(bench, *counts) for name, counts in shapes.items()}
    if isinstance(network, GraphedWan):
        return {name: captured(network, batch, steady.cache) for name, batch in batches.items()}
    return {name: partial(network, batch, steady.cache) for name, batch in batches.items()}


def stage_name(num_stages: int) -> str:
    """Name of the forward of so many stages at once."""
    return "C+D" if num_stages == 1 else f"C+D of {num_stages} stages"


def _baseline_works(bench: Bench, model: CausalWan, embedding_TX: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Both passes of the baseline in the steady state: each D moves the window on by a block."""
    window_tokens = bench.sizes.rollout.window_blocks * bench.sizes.block_tokens
    baseline, cache = Baseline(model, embedding_TX), BaselineCache(model, window_tokens)
    cache.keys_NTHK.normal_()
    cache.values_NTHK.normal_()
    cache.num_tokens = window_tokens
    block = bench.sizes.rollout.window_blocks
    latents = torch.randn(bench.sizes.latent_shape, dtype=model.dtype, device=bench.device)
    return {
        BASELINE_D: lambda: baseline.forward(latents, DENOISE_TIMESTEP, block, cache, is_new=True),
        BASELINE_C: lambda: baseline.forward(latents, CACHE_TIMESTEP, block, cache, is_new=False),
    }


def _report_times(bench: Bench, section: Section, timings: dict[str, Timing]) -> None:
    for name, timing in timings.items():
        print(f"passes {name}: {timing.median_s * 1e3:.1f} ms", flush=True)
    num_stages = bench.sizes.rollout.num_stages
    # Where a forward ran both ways, what follows is about the replayed one, which is what the engine runs.
    seconds = {name.removesuffix(REPLAYED): timing.median_s for name, timing in timings.items()}
    bench.passes = _pass_times(seconds, num_stages)
    plain_s = {}
    if bench.passes:
        d, c = bench.passes.baseline_denoise_s, bench.passes.baseline_cache_s
        plain_s = {D: d, C: c, **{stage_name(k): k * (d + c) for k in range(1, num_stages + 1)}}
    rows, bars = [], []
    for name, timing in timings.items():
        what = name.removesuffix(REPLAYED)
        num_cache, num_denoise = _counts(what, num_stages)
        count, milliseconds = num_cache + num_denoise, timing.median_s * 1e3
        rate = forward_flop(bench, num_cache, num_denoise, what) / timing.median_s / 1e12
        ratio = plain_s[what] / timing.median_s if what in plain_s else "-"
        times = (milliseconds, timing.p95_s * 1e3, milliseconds / count)
        rows.append((name, count, *times, rate, ratio, len(timing.runs_s)))
        bars.append(Bar(name, milliseconds / count, ours=name not in {BASELINE_D, BASELINE_C}))
    title = f"{bench.sizes.transformer.num_layers} layers, {bench.sizes.size_px[0]}x{bench.sizes.size_px[1]}"
    section.tables.append(Table(f"Full window, {title}", COLUMNS, tuple(rows)))
    section.panels.append(Panel("Passes over a full window", "ms a segment", tuple(bars)))
    whole = stage_name(num_stages)
    if whole in plain_s and whole in seconds:
        what, ratio = "one GPU, step-first: speed / plain PyTorch", plain_s[whole] / seconds[whole]
        section.headlines.append(Headline(what, ratio, GOAL))


def _pass_times(seconds: dict[str, float], num_stages: int) -> PassTimes | None:
    """What later sections derive from; None unless both passes ran both ways."""
    if not {D, C, BASELINE_D, BASELINE_C} <= seconds.keys():
        return None
    stages = [seconds[name] for name in map(stage_name, range(1, num_stages + 1)) if name in seconds]
    return PassTimes(
        denoise_s=seconds[D],
        cache_s=seconds[C],
        stages_s=tuple(stages) if len(stages) == num_stages else (),
        baseline_denoise_s=seconds[BASELINE_D],
        baseline_cache_s=seconds[BASELINE_C],
    )


def forward_flop(bench: Bench, num_cache: int, num_denoise: int, name: str) -> float:
    """Operations of matrix products and of attention (spec section 1.5); our cache passes stop in the last layer."""
    config, tokens = bench.sizes.transformer, bench.sizes.block_tokens
    keys = bench.sizes.rollout.window_blocks * tokens
    linear = 2 * tokens * config.dim * (6 * config.dim + 2 * config.ffn_dim)
    attention = 4 * tokens * (keys + config.text_len) * config.dim
    layer, keys_values = linear + attention, 4 * tokens * config.dim**2
    skipped = 0 if name in {BASELINE_D, BASELINE_C} else num_cache * (layer - keys_values)
    return float((num_cache + num_denoise) * config.num_layers * layer - skipped)


def _counts(name: str, num_stages: int) -> tuple[int, int]:
    """Cache passes and denoise passes of a forward."""
    by_stages = {stage_name(k): (k, k) for k in range(1, num_stages + 1)}
    return {D: (0, 1), C: (1, 0), BASELINE_D: (0, 1), BASELINE_C: (1, 0), **by_stages}[name]


def _runnable(section: Section, works: dict[str, Callable[[], Tensor]]) -> dict[str, Callable[[], Tensor]]:
    """Those that run, after their first run."""
    return {name: work for name, work in works.items() if section.attempt(name, work) is not None}


def _report_memory(bench: Bench, section: Section, steady: Steady) -> None:
    """Weights, a page, the pool, and what the largest forward takes beyond everything that stays."""
    weights = sum(parameter.nbytes for parameter in steady.model.parameters())
    keys = steady.cache.keys_NPLHK
    pool = 2 * keys.nbytes
    rows = [("weights", weights), ("a page", pool // keys.shape[1]), (f"the pool, {keys.shape[1]} pages", pool)]
    if bench.on_gpu:
        bench.finish()
        peak, resting = torch.cuda.max_memory_allocated(bench.device), torch.cuda.memory_allocated(bench.device)
        rows += [("largest forward, beyond what stays", peak - resting)]
        rows += [("peak, the baseline's cache of one stage included", peak)]
    section.tables.append(Table("Memory", ("what", "GB"), tuple((what, size / 1e9) for what, size in rows)))


def _agree(bench: Bench, section: Section, model: CausalWan, embedding_TX: Tensor) -> None:
    num_blocks, window = 3, 2
    ways: dict[str, Network] = {"ours": model, "ours" + REPLAYED: replayed(bench, model, window)}
    rows = []
    for way, network in ways.items():
        found = section.attempt(way, partial(flow_difference, bench, model, network, embedding_TX, num_blocks, window))
        if found:
            rows.append((way, *found, found[0] / found[1]))
    columns = ("forward", "largest difference", "largest flow", "relative")
    title = f"Flow against the baseline's, {num_blocks} blocks, window of {window}"
    section.tables.append(Table(title, columns, tuple(rows)))


def flow_difference(
    bench: Bench, model: CausalWan, network: Network, embedding_TX: Tensor, num_blocks: int, window_blocks: int
) -> tuple[float, float]:
    """Run D and C of the first blocks by ``network`` and by the baseline, both with the weights of ``model``.

    Returns the largest difference of a flow and the largest flow.
    """
    sizes, config, tokens = bench.sizes, bench.sizes.transformer, bench.sizes.block_tokens
    baseline, plain_cache = Baseline(model, embedding_TX), BaselineCache(model, window_blocks * tokens)
    shape = (config.num_layers, window_blocks, tokens, config.num_heads, config.head_dim)
    pages = [torch.zeros(shape, dtype=model.dtype, device=bench.device) for _ in range(2)]
    cache, context = PagedCache(*pages), model.encode_context(embedding_TX)
    generator = torch.Generator().manual_seed(1)
    worst = scale = 0.0
    for block in range(num_blocks):
        seen = tuple(earlier % window_blocks for earlier in range(max(0, block - window_blocks + 1), block))
        for timestep, is_new in ((DENOISE_TIMESTEP, True), (CACHE_TIMESTEP, False)):
            latents = torch.randn(sizes.latent_shape, generator=generator).to(bench.device, model.dtype)
            batch = SegmentBatch(
                latents_GFCYX=latents[None],
                timesteps_G=torch.full((1,), timestep, device=bench.device),
                starts_G=torch.full((1,), block * sizes.latent_shape[0], dtype=torch.int64, device=bench.device),
                contexts=(context,),
                page_lists=(seen,),
                write_pages=() if is_new else (block % window_blocks,),
            )
            if isinstance(network, GraphedWan) and block == 0:
                network.capture(batch, cache)
            expected = baseline.forward(latents, timestep, block, plain_cache, is_new=is_new).float()
            flow = network(batch, cache).float()
            if is_new:
                worst = max(worst, float((flow[0] - expected).abs().max()))
                scale = max(scale, float(expected.abs().max()))
    return worst, scale
