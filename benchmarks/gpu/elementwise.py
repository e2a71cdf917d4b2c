"""The fused elementwise kernels: bytes a second against a plain copy, and against torch.compile of their formulas.

Bytes are those that must move: every operand read once and every result written once.

Letters: G segments, L tokens, E width, R rotary pairs of a head, P pages.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.ceilings import copy_rate
from benchmarks.gpu.record import Bar, Panel, Section, Table
from benchmarks.gpu.timing import Bench
from engine.model.rope import rotations
from kernels.dispatch import uses_triton
from kernels.elementwise import formula as formulas

NUM_SEGMENTS = 2
"""A cache pass and a denoise pass."""
NUM_FRAMES = 3
COMPILE_S = 15.0
"""Time that compiling one formula may take; it is left out when less is left."""
COLUMNS = ("kernel", "MB", "median ms", "GB/s", "of a copy", "compiled formula ms", "compiled / ours")


@dataclass(frozen=True)
class Case:
    """One call of one kernel."""

    name: str
    arguments: tuple[Any, ...]
    num_bytes: int


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``."""
    ceiling = copy_rate(bench)
    rows: list[tuple[str, float, float, float, float, float | str, float | str]] = []
    with torch.no_grad():
        for case in cases(bench):
            if bench.left_s() <= 0:
                section.skip(case.name, "no time left")
                continue
            seconds = section.attempt(case.name, partial(_seconds, bench, section, case))
            if not seconds:
                continue
            ours_s, compiled_s = seconds
            rate = case.num_bytes / ours_s
            print(f"elementwise {case.name}: {rate / 1e9:.0f} GB/s, {rate / ceiling:.0%} of a copy", flush=True)
            against = (compiled_s * 1e3, compiled_s / ours_s) if compiled_s else ("not run", "not run")
            rows.append((case.name, case.num_bytes / 1e6, ours_s * 1e3, rate / 1e9, rate / ceiling, *against))
    section.notes.append("The compiled formula of norm_rotate_store reads the page numbers back to the host.")
    section.tables.append(Table(f"{NUM_SEGMENTS} segments", COLUMNS, tuple(rows)))
    bars = tuple(Bar(row[0], row[4], ours=True) for row in rows)
    section.panels.append(Panel("Elementwise kernels", "of a copy's rate", bars))


def cases(bench: Bench) -> list[Case]:
    """Every kernel with operands of the model's size."""
    config, tokens = bench.sizes.transformer, bench.sizes.block_tokens

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=bench.dtype, device=bench.device)

    x, y, v = (random(NUM_SEGMENTS, tokens, config.dim) for _ in range(3))
    shift, scale, gate = random(NUM_SEGMENTS, 6, config.dim).split(1, dim=1)[:3]  # strided, as the model has them
    weight, bias = random(config.dim), random(config.dim)
    frames, _, height, width = bench.sizes.latent_shape
    grid = (frames, height // config.patch_px, width // config.patch_px)
    turns = rotations(torch.arange(NUM_SEGMENTS, device=bench.device), grid, config.head_dim)
    k_pages, v_pages = (random(2, tokens, config.num_heads, config.head_dim) for _ in range(2))
    heads, eps = config.num_heads, config.eps
    whole, turning, page = x.nbytes, turns.nbytes, k_pages[0].nbytes
    written = torch.tensor([1, *[-1] * (NUM_SEGMENTS - 1)], dtype=torch.int32, device=bench.device)
    store = (x, v, weight, turns, heads, eps, k_pages, v_pages, written)
    return [
        Case("modulated_norm", (x, shift, scale, eps), 2 * whole),
        Case("gated_residual", (x, y, gate), 3 * whole),
        Case("gated_residual_norm", (x, y, gate, weight, bias, eps), 4 * whole),
        Case("residual_modulated_norm", (x, y, shift, scale, eps), 4 * whole),
        Case("rms_norm", (x, weight, eps), 2 * whole),
        Case("norm_rotate", (x, weight, turns, heads, eps), 2 * whole + turning),
        # Values are read for the segment whose page is written; beyond that their tensor only passes through.
        Case("norm_rotate_store", store, 2 * whole + turning + 3 * page),
    ]


def _seconds(bench: Bench, section: Section, case: Case) -> tuple[float, float | None]:
    """Median seconds of our kernel and of the compiled formula; None where that does not run."""
    formula: Callable[..., object] = inspect.unwrap(getattr(formulas, case.name))
    kernel = kernel_of(case, formula)
    works: dict[str, Callable[[], object]] = {"ours": lambda: kernel(*case.arguments)}
    # Formulas call one another through the dispatch; inside the compiled one no kernel of ours may run.
    with patch.object(formulas, "uses_triton", lambda x: False):
        torch.compiler.reset()
        compiled: Callable[..., object] = torch.compile(formula, dynamic=False, backend=bench.compiler)
        what = f"{case.name}, compiled formula"
        if bench.left_s() < COMPILE_S:
            section.skip(what, "no time left to compile it")
        elif section.attempt(what, lambda: compiled(*case.arguments)) is not None:
            works["compiled"] = lambda: compiled(*case.arguments)
        timings = bench.interleaved(works)
    return timings["ours"].median_s, timings["compiled"].median_s if "compiled" in timings else None


def kernel_of(case: Case, formula: Callable[..., object]) -> Callable[..., object]:
    """The Triton kernel where Triton takes the operands, else the formula itself."""
    if not uses_triton(case.arguments[0]):
        return formula
    from kernels.elementwise import triton  # noqa: PLC0415 - Triton loads only where it runs

    kernel: Callable[..., object] = getattr(triton, case.name)
    return kernel
