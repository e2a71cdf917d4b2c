"""Chooses how paged attention is computed on this machine: the fastest of several ways that passes a check of numbers.

Which way is fastest differs by GPU, driver and library version, so each is tried once, on random data of the shape that
counts, before anything is captured or served. A way whose numbers are off, or that raises, is left out and says why.
One that could stand still is tried in a process of its own first. Knows nothing of blocks, videos or noise.

Pages in 8 bits, and products of queries and keys in 8 bits, are told and never chosen: they change numbers. A way is
then checked against the formula on the numbers that are left after rounding.

Letters: G segments, L tokens of a segment (and of a page), H heads, K channels of a head, P pages of the pool,
W columns of a page table, T keys of a segment, R checked queries.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention.apart import refusal_apart
from kernels.attention.formula import paged_attention, paged_attention_reference
from kernels.attention.int8 import paged_attention_int8_reference
from kernels.attention.scene import Scene, scenes
from kernels.attention.table import PageTable
from kernels.dispatch import uses_triton
from kernels.fp8.formula import PageScales

PagedAttention = Callable[..., Tensor]
"""Takes and returns what ``formula.paged_attention`` does; scales are passed only where pages have them."""
Work = Callable[[], object]
Timed = Callable[[Mapping[str, Work]], Mapping[str, float]]
"""Seconds that each of several works takes."""

GATES = {torch.bfloat16: 2.5e-3, torch.float16: 4e-4, torch.float32: 2e-6}
"""Largest norm of the error over norm of the result (``kernels`` spec section 3.5); bfloat16 alone takes 1.7e-3."""
WARM_UPS = 3
RUNS = 10


@dataclass(frozen=True)
class Candidate:
    """One way to compute paged attention. On a GPU it launches the same work whatever a page table holds."""

    name: str
    attend: PagedAttention
    takes_any_table: bool = True
    """False: right only where every segment reads all W pages of its row, and L tokens of each."""
    apart_first: bool = False
    """Whether it is tried in a process of its own first, because it could stand still."""


@dataclass(frozen=True)
class Trial:
    """What became of a candidate."""

    name: str
    error: float | None = None
    """Norm of the error over norm of the result; None if there is no result."""
    seconds: float | None = None
    """Median over the full table; None if it was not timed."""
    refusal: str | None = None
    """Why it was left out."""

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"{self.name} left out: {self.refusal}"
        return f"{self.name} {(self.seconds or 0.0) * 1e3:.3f} ms"


@dataclass(frozen=True)
class Choice:
    """How attention is computed from now on."""

    name: str
    """Of the way taken where tables are full, which is all but the first blocks of a video."""
    full: PagedAttention
    """The fastest of all: for tables of which every segment reads all W pages, and L tokens of each."""
    growing: PagedAttention
    """The fastest of those that take any table, shorter pages too; the same object as ``full`` if that takes any."""
    trials: tuple[Trial, ...] = ()

    @property
    def sound(self) -> tuple[str, ...]:
        """Names of the ways that passed."""
        return tuple(trial.name for trial in self.trials if trial.refusal is None)


UNTRIED = Choice("untried", paged_attention, paged_attention)
"""What tensors and device alone decide."""


class NoAttentionError(Exception):
    """No candidate that takes any table passed; the message names all of them."""


def candidates_on(
    device: torch.device, dtype: torch.dtype, *, fp8_pages: bool = False, int8: bool = False
) -> tuple[Candidate, ...]:
    """What may run on the device with such pages and products. Whether it does, a trial tells."""
    found: list[Candidate] = []
    if uses_triton(torch.empty(0, device=device)):
        from kernels.attention.triton_softmax import capability_of  # noqa: PLC0415 - Triton loads only where it runs

        found += kernels_on(capability_of(device), dtype, fp8_pages=fp8_pages, int8=int8)
    elif device.type != "cuda":
        found.append(
            Candidate("torch-int8", paged_attention_int8_reference)
            if int8
            else Candidate("torch-sdpa", paged_attention_reference)
        )
    if device.type == "cuda" and not fp8_pages and not int8:
        backends = {"cudnn-gathered": SDPBackend.CUDNN_ATTENTION, "flash-gathered": SDPBackend.FLASH_ATTENTION}
        found += [Candidate(name, partial(gathered_attention, one), False) for name, one in backends.items()]
    return tuple(found)


def choose_attention(
    device: torch.device,
    dtype: torch.dtype,
    num_tokens: int,
    num_heads: int,
    head_dim: int,
    num_pages: int,
    *,
    timed: Timed,
    candidates: Sequence[Candidate] | None = None,
    known: Collection[str] = (),
    num_segments: int = 2,
    fp8_pages: bool = False,
    int8: bool = False,
) -> Choice:
    """Try candidates on random numbers: check all, time those that pass, take the fastest.

    Args:
        device: where it will run.
        dtype: of queries, keys and values; a key of ``GATES``.
        num_tokens: tokens of a segment and of a page.
        num_heads: heads.
        head_dim: channels of a head.
        num_pages: pages that a segment reads besides its own tokens when its window is full.
        timed: measures works that all run on ``device``.
        candidates: ``candidates_on`` the device unless said; names differ.
        known: those that passed on this device before; no other is tried then, and none in a process of its own.
        num_segments: segments of the trial.
        fp8_pages: pages are held in 8 bits.
        int8: queries and keys are multiplied in 8 bits.

    Raises:
        NoAttentionError: see there.
    """
    if candidates is None:
        candidates = candidates_on(device, dtype, fp8_pages=fp8_pages, int8=int8)
    if known:
        candidates = [replace(one, apart_first=False) for one in candidates if one.name in known]
    shape = (num_tokens, num_heads, head_dim)
    tried_on = scenes(device, dtype, shape, num_segments, num_pages, fp8_pages=fp8_pages, int8=int8)

    def tried(one: Candidate) -> Trial:
        refusal = refusal_apart(one.name, device, dtype, shape, num_segments, num_pages) if one.apart_first else None
        return check(one, tried_on) if refusal is None else Trial(one.name, refusal=refusal)

    trials = {one.name: tried(one) for one in candidates}
    sound = [one for one in candidates if trials[one.name].refusal is None]
    seconds = timed({one.name: partial(one.attend, *tried_on[0].arguments) for one in sound})
    for one in sound:
        trials[one.name] = Trial(one.name, trials[one.name].error, seconds[one.name])
    by_speed = sorted(sound, key=lambda one: seconds[one.name])
    for_any_table = [one for one in by_speed if one.takes_any_table]
    if not for_any_table:
        raise NoAttentionError(f"no way to compute attention works: {'; '.join(map(str, trials.values()))}")
    return Choice(by_speed[0].name, by_speed[0].attend, for_any_table[0].attend, tuple(trials.values()))


def kernels_on(
    capability: tuple[int, int], dtype: torch.dtype, *, fp8_pages: bool = False, int8: bool = False
) -> list[Candidate]:
    """The kernels that suit a compute capability, each as its tilings cut it. Needs Triton.

    Args:
        capability: of the GPU; (0, 0) for Triton's interpreter.
        dtype: of queries, keys and values.
        fp8_pages: pages are held in 8 bits.
        int8: queries and keys are multiplied in 8 bits.
    """
    from kernels.attention.triton import paged_attention_triton  # noqa: PLC0415 - Triton loads only where it runs
    from kernels.attention.triton_int8 import int8_attention_triton  # noqa: PLC0415
    from kernels.attention.triton_softmax import tilings_on  # noqa: PLC0415
    from kernels.attention.triton_specialised import CAPABILITY, paged_attention_specialised  # noqa: PLC0415

    kernel, name = (int8_attention_triton, "triton-int8") if int8 else (paged_attention_triton, "triton")
    found = []
    for tiling in tilings_on(capability, dtype, fp8_pages=fp8_pages, int8=int8):
        loads = "float32" if dtype == torch.float32 else "tma" if tiling.descriptors else "pointers"
        found.append(Candidate(f"{name}-{loads}", partial(kernel, tiling=tiling)))
    if capability == CAPABILITY and dtype in (torch.bfloat16, torch.float16) and not fp8_pages and not int8:
        found.append(Candidate("triton-specialised", paged_attention_specialised, apart_first=True))
    return found


def gathered_attention(
    backend: SDPBackend,
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
) -> Tensor:
    """Copy each segment's pages and own tokens together, and attend with one of torch's backends.

    Reads L tokens of all W pages of each row, whatever the table says of their numbers. The copy takes (W + 1) * L rows
    a segment and layer.
    Pages have the type of the queries.

    Raises:
        RuntimeError: the backend does not take such tensors.
    """
    assert scales is None, "pages in 8 bits cannot be copied together"
    keys_GTHK = _gather(k_GLHK, k_pages_PLHK, table.pages_GW)
    values_GTHK = _gather(v_GLHK, v_pages_PLHK, table.pages_GW)
    q, k, v = (x.transpose(1, 2) for x in (q_GLHK, keys_GTHK, values_GTHK))
    with sdpa_kernel(backend):
        out_GHLK: Tensor = scaled_dot_product_attention(q, k, v)
    return out_GHLK.transpose(1, 2)


def seconds_by_events(works: Mapping[str, Work]) -> dict[str, float]:
    """Median seconds on the current CUDA device. Works take turns, so that a change of clocks meets all of them."""
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in works}
    for run in range(WARM_UPS + RUNS):
        for name, work in works.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            if run >= WARM_UPS:
                events[name].append((begin, end))
    torch.cuda.synchronize()
    return {name: median(begin.elapsed_time(end) for begin, end in runs) / 1e3 for name, runs in events.items()}


def seconds_by_clock(works: Mapping[str, Work]) -> dict[str, float]:
    """Median seconds of works that are over when they return."""
    runs: dict[str, list[float]] = {name: [] for name in works}
    for run in range(WARM_UPS + RUNS):
        for name, work in works.items():
            began_s = time.perf_counter()
            work()
            if run >= WARM_UPS:
                runs[name].append(time.perf_counter() - began_s)
    return {name: median(times) for name, times in runs.items()}


def check(candidate: Candidate, tried_on: Sequence[Scene]) -> Trial:
    """Compare a candidate with the formula, on more than the first scene only if it takes any table; not timed."""
    try:
        errors = [
            scene.error(candidate.attend(*scene.arguments))
            for scene in (tried_on if candidate.takes_any_table else tried_on[:1])
        ]
    except _refusals() as error:
        sentence = str(error).strip().partition("\n")[0]
        return Trial(candidate.name, refusal=f"{type(error).__name__}: {sentence}")
    gate, worst = GATES[tried_on[0].dtype], max(errors, key=lambda error: (math.isnan(error), error))
    wrong = None if worst <= gate else f"relative error {worst:.1e}, {gate:.1e} is allowed"
    return Trial(candidate.name, worst, refusal=wrong)


def _refusals() -> tuple[type[Exception], ...]:
    """What PyTorch and Triton raise where a way does not work; anything else is our bug."""
    if find_spec("triton") is None:
        return RuntimeError, ValueError
    from triton.errors import TritonError  # noqa: PLC0415 - Triton loads only where it runs

    return RuntimeError, ValueError, TritonError


def _gather(own_GLHK: Tensor, pages_PLHK: Tensor, pages_GW: Tensor) -> Tensor:
    """Each segment's pages and then its own tokens, [G, (W + 1) * L, H, K]."""
    num_segments, num_tokens, *heads = own_GLHK.shape
    width = pages_GW.shape[1]
    gathered = own_GLHK.new_empty(num_segments, width + 1, num_tokens, *heads)
    for segment in range(num_segments):
        torch.index_select(pages_PLHK[:, :num_tokens], 0, pages_GW[segment], out=gathered[segment, :width])
        gathered[segment, width] = own_GLHK[segment]
    return gathered.flatten(1, 2)
