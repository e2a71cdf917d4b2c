"""A denoise pass over a full window with fewer bits: pages, linear layers and products of attention, in turns.

Speed and memory. What it costs in error is measured by ``benchmarks.precision``, which needs no GPU.

Letters: G segments, T prompt rows, X width of a prompt's embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.passes import DENOISE_TIMESTEP, captured, captures_of, random_model
from benchmarks.gpu.record import Bar, Panel, Section, Table
from benchmarks.gpu.timing import Bench
from engine.engine_config import Precision
from engine.model.dit import CausalWan
from engine.model.graphs import GraphedWan
from engine.model.segments import SegmentBatch
from engine.stage.pages import PagePool
from kernels.attention.choice import Choice
from kernels.attention.formula import paged_attention
from kernels.attention.int8 import paged_attention_int8
from kernels.fp8.formula import quantise_rows
from kernels.numbers import FP8

PLAIN = "none"
OPTIONS = {
    PLAIN: Precision(),
    "fp8 pages": Precision(kv_dtype="fp8"),
    "fp8 linears": Precision(linear_dtype="fp8"),
    "int8 attention": Precision(attention_dtype="int8"),
    "all three": Precision(kv_dtype="fp8", linear_dtype="fp8", attention_dtype="int8"),
}
COLUMNS = ("fewer bits", "median ms", "p95 ms", "time without / with")


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``: one replayed denoise pass by each option, and what weights and pages take."""
    section.notes.append("Kernels are cut as their tensors and this device suggest; nothing is chosen by trial here.")
    with torch.inference_mode():
        models, pools = _models(bench), _pools(bench)
        works: dict[str, Callable[[], Tensor]] = {}
        for name, precision in OPTIONS.items():
            model, pool = models[precision.fp8_linears], pools[precision.fp8_pages]
            forward = captured(_replayed(bench, model, precision), _batch(bench, model), pool.cache)
            if section.attempt(name, forward) is not None:
                works[name] = forward
        timings = bench.interleaved(works)
    plain_s = timings[PLAIN].median_s if PLAIN in timings else None
    rows = []
    for name, timing in timings.items():
        print(f"narrow {name}: {timing.median_s * 1e3:.1f} ms", flush=True)
        gain = plain_s / timing.median_s if plain_s else "not run"
        rows.append((name, timing.median_s * 1e3, timing.p95_s * 1e3, gain))
    section.tables.append(Table("A denoise pass over a full window, replayed", COLUMNS, tuple(rows)))
    bars = tuple(Bar(name, timing.median_s * 1e3, ours=True) for name, timing in timings.items())
    section.panels.append(Panel("A denoise pass with fewer bits", "ms", bars))
    section.tables.append(_memory(models, pools))


def _models(bench: Bench) -> dict[bool, CausalWan]:
    """The same random weights without and with linear layers in 8 bits."""
    plain, narrow = (random_model(bench.sizes.transformer, bench.device, bench.dtype) for _ in range(2))
    narrow.use_fp8_linears()
    return {False: plain, True: narrow}


def _pools(bench: Bench) -> dict[bool, PagePool]:
    """One window of random numbers in the model's type, and the same in 8 bits."""
    plain, narrow = (_pool(bench, dtype) for dtype in (bench.dtype, FP8))
    pairs = (
        (plain.cache.keys_NPLHK, narrow.cache.keys_NPLHK, narrow.cache.key_scales_NPHL),
        (plain.cache.values_NPLHK, narrow.cache.values_NPLHK, narrow.cache.value_scales_NPHL),
    )
    for wide_NPLHK, narrow_NPLHK, scales_NPHL in pairs:
        assert scales_NPHL is not None
        for layer, wide_PLHK in enumerate(wide_NPLHK.normal_()):
            narrow_NPLHK[layer], scales_PLH1 = quantise_rows(wide_PLHK)
            scales_NPHL[layer] = scales_PLH1[..., 0].transpose(1, 2)
    return {False: plain, True: narrow}


def _pool(bench: Bench, dtype: torch.dtype) -> PagePool:
    config = bench.sizes.transformer
    return PagePool(
        num_pages=bench.sizes.rollout.window_blocks - 1,
        num_layers=config.num_layers,
        page_tokens=bench.sizes.block_tokens,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        dtype=dtype,
        device=bench.device,
    )


def _replayed(bench: Bench, model: CausalWan, precision: Precision) -> GraphedWan:
    attention = paged_attention_int8 if precision.int8_attention else paged_attention
    return GraphedWan(
        model,
        window_pages=bench.sizes.rollout.window_blocks - 1,
        max_segments=1,
        captures=captures_of(bench),
        attention=Choice("as told", attention, attention),
    )


def _batch(bench: Bench, model: CausalWan) -> SegmentBatch:
    """One denoise pass behind a full window."""
    window = bench.sizes.rollout.window_blocks
    embedding_TX = torch.randn(bench.sizes.prompt_tokens, bench.sizes.transformer.text_dim)
    return SegmentBatch(
        latents_GFCYX=torch.randn(1, *bench.sizes.latent_shape, dtype=bench.dtype, device=bench.device),
        timesteps_G=torch.tensor([DENOISE_TIMESTEP], device=bench.device),
        starts_G=torch.tensor([window * bench.sizes.latent_shape[0]], dtype=torch.int64, device=bench.device),
        contexts=(model.encode_context(embedding_TX),),
        page_lists=(tuple(reversed(range(window - 1))),),
        write_pages=(),
    )


def _memory(models: dict[bool, CausalWan], pools: dict[bool, PagePool]) -> Table:
    rows = []
    for is_narrow, name in ((False, PLAIN), (True, "all")):
        tensors = (*models[is_narrow].parameters(), *models[is_narrow].buffers())
        weights, page = sum(one.nbytes for one in tensors), pools[is_narrow].page_bytes
        rows.append((name, weights / 1e9, page / 1e9))
    return Table("Memory", ("fewer bits", "weights GB", "a page GB"), tuple(rows))
