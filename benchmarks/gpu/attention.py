"""Attention over pages against every backend of torch's SDPA that runs here and against FlexAttention.

Ours reads permuted pages through the function the model calls. The others read the same keys and values from
contiguous memory, which is what they are fastest on.

Letters: G segments, L tokens of a segment and of a page, H heads, K channels of a head, P pages, T keys of a segment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.record import Bar, Headline, Panel, Section, Table
from benchmarks.gpu.timing import Bench, Timing
from kernels.attention.formula import paged_attention
from kernels.attention.int8 import paged_attention_int8
from kernels.attention.table import PageTable, page_table
from kernels.fp8.formula import PageScales, quantise_rows_reference

OURS, SPECIALISED = "ours", "ours, warp-specialised"
FP8_PAGES, INT8, BOTH = "ours, fp8 pages", "ours, int8", "ours, int8 over fp8 pages"
NARROW = (FP8_PAGES, INT8, BOTH)
"""Ours with fewer bits; their errors hold what the rounding costs. Full windows only."""
FLEX = "flex_attention"
BACKENDS = {
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
}
GOAL = 0.8
"""Of the best backend's rate, at the longest window."""
CHECKED_ROWS = 64
"""Queries of the last segment that are compared with float32."""
SPARE_PAGES = 3
FLEX_S = 30.0
"""Time that compiling FlexAttention for one shape may take; it is left out when less is left."""
COLUMNS = ("queries", "keys", "what", "median ms", "p95 ms", "TFLOP/s", "rate / best SDPA", "error against float32")


@dataclass(frozen=True)
class Operands:
    """The same numbers twice: in pages, and contiguous."""

    q_GLHK: Tensor
    k_GLHK: Tensor
    v_GLHK: Tensor
    k_pages_PLHK: Tensor
    v_pages_PLHK: Tensor
    table: PageTable
    q_GHLK: Tensor
    k_GHTK: Tensor
    v_GHTK: Tensor

    @property
    def flop(self) -> int:
        """Operations of both products."""
        num_segments, num_heads, num_queries, width = self.q_GHLK.shape
        return 4 * num_segments * num_heads * num_queries * self.k_GHTK.shape[2] * width


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``, the largest windows first."""
    window = bench.sizes.rollout.window_blocks
    shapes = [(1, window), (2, window), (4, window), *((1, blocks) for blocks in range(1, window))]
    rows, by_shape = [], []
    with torch.no_grad():
        for num_segments, num_blocks in shapes:
            tokens = bench.sizes.block_tokens
            what = f"{num_segments * tokens} x {num_blocks * tokens}"
            if bench.left_s() <= 0:
                section.skip(what, "no time left")
                continue
            found = section.attempt(what, partial(_measure_shape, bench, section, what, num_segments, num_blocks))
            if found:
                rows += found
                by_shape.append((what, {str(row[2]): float(row[5]) for row in found}))
    section.tables.append(Table("Queries (of all segments) against keys (of each segment)", COLUMNS, tuple(rows)))
    _summarise(section, by_shape)


def _measure_shape(
    bench: Bench, section: Section, what: str, num_segments: int, num_blocks: int
) -> list[tuple[int, int, str, float, float, float, float | str, float]]:
    operands = make_operands(bench, num_segments, num_blocks)
    works = _works(bench, operands)
    if num_blocks == bench.sizes.rollout.window_blocks:
        works |= _narrow_works(operands)
    if bench.left_s() < FLEX_S:
        del works[FLEX]
        section.skip(f"{what}, {FLEX}", "no time left to compile it")
    outputs = {name: section.attempt(f"{what}, {name}", work) for name, work in works.items()}
    running = {name: works[name] for name, output in outputs.items() if output is not None}
    expected_RHK = reference_rows(operands)
    errors = {name: relative_error(outputs[name], expected_RHK) for name in running}
    outputs.clear()
    timings = bench.interleaved(running)
    rates = {name: operands.flop / timing.median_s for name, timing in timings.items()}
    best = max((rate for name, rate in rates.items() if name in BACKENDS), default=None)
    num_queries, num_keys = operands.q_GHLK.shape[2] * num_segments, operands.k_GHTK.shape[2]
    rows: list[tuple[int, int, str, float, float, float, float | str, float]] = []
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median_s):
        ratio = rates[name] / best if best else "-"
        figures = (_ms(timing), timing.p95_s * 1e3, rates[name] / 1e12, ratio, errors[name])
        print(f"attention {what}: {name} {_ms(timing):.3f} ms, {rates[name] / 1e12:.1f} TFLOP/s", flush=True)
        rows.append((num_queries, num_keys, name, *figures))
    return rows


def make_operands(bench: Bench, num_segments: int, num_blocks: int) -> Operands:
    """Random queries, keys and values; the pages of a segment lie anywhere in the pool."""
    config, tokens = bench.sizes.transformer, bench.sizes.block_tokens
    num_pages = num_segments * (num_blocks - 1) + SPARE_PAGES

    def random(count: int) -> Tensor:
        shape = (count, tokens, config.num_heads, config.head_dim)
        return torch.randn(shape, dtype=bench.dtype, device=bench.device)

    q_GLHK, k_GLHK, v_GLHK = (random(num_segments) for _ in range(3))
    k_pages_PLHK, v_pages_PLHK = random(num_pages), random(num_pages)
    order = torch.randperm(num_pages, generator=torch.Generator().manual_seed(0)).tolist()
    cuts = [segment * (num_blocks - 1) for segment in range(num_segments + 1)]
    page_lists = tuple(tuple(order[begin:end]) for begin, end in pairwise(cuts))

    def contiguous(pages_PLHK: Tensor, own_GLHK: Tensor) -> Tensor:
        whole = [
            torch.cat([*(pages_PLHK[page] for page in pages), own_LHK])
            for pages, own_LHK in zip(page_lists, own_GLHK, strict=True)
        ]
        return torch.stack(whole).transpose(1, 2).contiguous()

    return Operands(
        q_GLHK,
        k_GLHK,
        v_GLHK,
        k_pages_PLHK,
        v_pages_PLHK,
        page_table(page_lists, (), bench.device, page_tokens=q_GLHK.shape[1]),
        q_GHLK=q_GLHK.transpose(1, 2).contiguous(),
        k_GHTK=contiguous(k_pages_PLHK, k_GLHK),
        v_GHTK=contiguous(v_pages_PLHK, v_GLHK),
    )


def reference_rows(operands: Operands) -> Tensor:
    """The first queries of the last segment by the formula in float32 [R, H, K]."""
    q_HRK, k_HTK, v_HTK = (
        x[-1].float() for x in (operands.q_GHLK[:, :, :CHECKED_ROWS], operands.k_GHTK, operands.v_GHTK)
    )
    logits_HRT = q_HRK @ k_HTK.transpose(1, 2) * q_HRK.shape[-1] ** -0.5
    attended_HRK: Tensor = logits_HRT.softmax(dim=-1) @ v_HTK
    return attended_HRK.transpose(0, 1)


def relative_error(output_GLHK: Tensor | None, expected_RHK: Tensor) -> float:
    """Norm of the difference over norm of what is expected."""
    assert output_GLHK is not None
    difference = output_GLHK[-1, : len(expected_RHK)].float() - expected_RHK
    return float(difference.norm() / expected_RHK.norm())


def _works(bench: Bench, operands: Operands) -> dict[str, Callable[[], Tensor]]:
    """What is timed; all return [G, L, H, K]."""
    q, k, v = operands.q_GHLK, operands.k_GHTK, operands.v_GHTK

    def ours() -> Tensor:
        return paged_attention(
            operands.q_GLHK,
            operands.k_GLHK,
            operands.v_GLHK,
            operands.k_pages_PLHK,
            operands.v_pages_PLHK,
            operands.table,
        )

    def specialised() -> Tensor:
        from kernels.attention.triton_specialised import paged_attention_specialised  # noqa: PLC0415 - for sm_90 only

        own, pool = (operands.q_GLHK, operands.k_GLHK, operands.v_GLHK), (operands.k_pages_PLHK, operands.v_pages_PLHK)
        return paged_attention_specialised(*own, *pool, operands.table)

    def through(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def flex() -> Tensor:
        return compiled()(q, k, v).transpose(1, 2)

    known: list[Callable[..., Tensor]] = []

    def compiled() -> Callable[..., Tensor]:
        if not known:
            from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415 - slow to import

            torch.compiler.reset()  # else a limit on recompilations sends later shapes to the uncompiled formula
            known.append(torch.compile(flex_attention, dynamic=False, backend=bench.compiler))
        return known[0]

    ways = {OURS: ours, SPECIALISED: specialised} if bench.specialised else {OURS: ours}
    return {**ways, **{name: partial(through, backend) for name, backend in BACKENDS.items()}, FLEX: flex}


def _narrow_works(operands: Operands) -> dict[str, Callable[[], Tensor]]:
    """Ours over pages in 8 bits, with products of queries and keys in 8 bits, and both."""
    own, table = (operands.q_GLHK, operands.k_GLHK, operands.v_GLHK), operands.table
    pages = (operands.k_pages_PLHK, operands.v_pages_PLHK)
    (keys, key_scales), (values, value_scales) = map(quantise_rows_reference, pages)
    scales = PageScales(*(one[..., 0].transpose(1, 2).contiguous() for one in (key_scales, value_scales)))
    return {
        FP8_PAGES: lambda: paged_attention(*own, keys, values, table, scales),
        INT8: lambda: paged_attention_int8(*own, *pages, table),
        BOTH: lambda: paged_attention_int8(*own, keys, values, table, scales),
    }


def _summarise(section: Section, by_shape: list[tuple[str, dict[str, float]]]) -> None:
    """Charts of the longest window and of ours across windows, and the goal."""
    if not by_shape:
        return
    what, rates = by_shape[0]
    bars = tuple(Bar(name, rate, ours=name == OURS) for name, rate in rates.items())
    section.panels.append(Panel(f"Attention, {what}", "TFLOP/s", bars))
    both = []
    for shape, found in by_shape:
        best = max((rate for name, rate in found.items() if name in BACKENDS), default=None)
        if best and OURS in found:
            both.append(Bar(shape, found[OURS] / best, ours=True))
    section.panels.append(Panel("Attention, ours / best SDPA", "of its rate", tuple(both)))
    if both and both[0].label == what:
        section.headlines.append(Headline(f"attention {what}: rate / best SDPA backend", both[0].value, GOAL))


def _ms(timing: Timing) -> float:
    return timing.median_s * 1e3
