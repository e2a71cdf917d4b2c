"""Chooses how paged attention is computed on this machine: the fastest of several ways that passes a check of numbers.

Which way is fastest differs by GPU, driver and library version, so each is tried once, on random data of the shape that
counts, before anything is recorded or served. A way whose numbers are off, or that raises, is left out and says why.
Knows nothing of blocks, sessions or noise.

Letters: G segments, L tokens of a segment (and of a page), H heads, K channels of a head, P pages of the pool,
W columns of a page table, T keys of a segment, R checked queries.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention import PageTable, page_table, paged_attention, paged_attention_reference
from kernels.dispatch import uses_triton

PagedAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, PageTable], Tensor]
"""Takes and returns what ``kernels.attention.paged_attention`` does."""
Work = Callable[[], object]
Timed = Callable[[Mapping[str, Work]], Mapping[str, float]]
"""Seconds that each of several works takes."""

GATES = {torch.bfloat16: 2.5e-3, torch.float16: 4e-4, torch.float32: 2e-6}
"""Largest norm of the error over norm of the result (spec ``kernels.md``, section 3.5); bfloat16 alone takes 1.7e-3."""
CHECKED_ROWS = 64
WARM_UPS = 3
RUNS = 10


@dataclass(frozen=True)
class Candidate:
    """One way to compute paged attention. On a GPU it launches the same work whatever a page table holds."""

    name: str
    attend: PagedAttention
    takes_any_table: bool = True
    """False: right only where every segment reads all W pages of its row."""


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
    """Of the way taken where tables are full, which is all but the first blocks of a session."""
    full: PagedAttention
    """The fastest of all: for tables of which every segment reads all W pages."""
    growing: PagedAttention
    """The fastest of those that take any table; the same object as ``full`` if that takes any."""
    trials: tuple[Trial, ...] = ()


UNTRIED = Choice("untried", paged_attention, paged_attention)
"""What tensors and device alone decide."""


class NoAttentionError(Exception):
    """No candidate that takes any table passed; the message names all of them."""


def candidates_on(device: torch.device, dtype: torch.dtype) -> tuple[Candidate, ...]:
    """What may run on the device. Whether it does, a trial tells."""
    found: list[Candidate] = []
    if uses_triton(torch.empty(0, device=device)):
        found += _kernels(device, dtype)
    elif device.type != "cuda":
        found.append(Candidate("torch-sdpa", paged_attention_reference))
    if device.type == "cuda":
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
    num_segments: int = 2,
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
        num_segments: segments of the trial.

    Raises:
        NoAttentionError: see there.
    """
    shape = (num_tokens, num_heads, head_dim)
    candidates = candidates_on(device, dtype) if candidates is None else candidates
    full, growing = _scenes(device, dtype, shape, num_segments, num_pages)
    trials = {one.name: _check(one, [full, growing] if one.takes_any_table else [full]) for one in candidates}
    sound = [one for one in candidates if trials[one.name].refusal is None]
    seconds = timed({one.name: partial(one.attend, *full.arguments) for one in sound})
    for one in sound:
        trials[one.name] = Trial(one.name, trials[one.name].error, seconds[one.name])
    by_speed = sorted(sound, key=lambda one: seconds[one.name])
    for_any_table = [one for one in by_speed if one.takes_any_table]
    if not for_any_table:
        raise NoAttentionError(f"no way to compute attention works: {'; '.join(map(str, trials.values()))}")
    return Choice(by_speed[0].name, by_speed[0].attend, for_any_table[0].attend, tuple(trials.values()))


def gathered_attention(
    backend: SDPBackend,
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
) -> Tensor:
    """Copy each segment's pages and own tokens together, and attend with one of torch's backends.

    Reads all W pages of each row, whatever ``num_pages_G`` says. The copy takes (W + 1) * L rows a segment and layer.

    Raises:
        RuntimeError: the backend does not take such tensors.
    """
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


@dataclass(frozen=True)
class _Scene:
    """What a candidate is called with, and some rows of what it should give."""

    arguments: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, PageTable]
    rows_R: Tensor
    expected_GRHK: Tensor

    def error(self, out_GLHK: Tensor) -> float:
        """Norm of the difference over norm of what is expected; NaN if there is any."""
        difference = out_GLHK[:, self.rows_R].float() - self.expected_GRHK
        return float(difference.norm() / self.expected_GRHK.norm())


def _scenes(
    device: torch.device, dtype: torch.dtype, shape_LHK: tuple[int, int, int], num_segments: int, num_pages: int
) -> tuple[_Scene, _Scene]:
    """Random numbers under a full table, and under one whose rows have different lengths. An unlisted page is NaN."""
    generator = torch.Generator(device).manual_seed(0)

    def random(count: int) -> Tensor:
        return torch.randn(count, *shape_LHK, generator=generator, device=device).to(dtype)

    q_GLHK, k_GLHK, v_GLHK = (random(num_segments) for _ in range(3))
    k_pages_PLHK, v_pages_PLHK = (random(num_segments * num_pages + 1) for _ in range(2))
    k_pages_PLHK[-1] = v_pages_PLHK[-1] = torch.nan
    # The order of a pool that has been in use: backwards, the segments' pages between each other.
    order = range(num_segments * num_pages - 1, -1, -1)
    full = [tuple(order[segment::num_segments]) for segment in range(num_segments)]
    growing = [pages[: len(pages) * segment // num_segments] for segment, pages in enumerate(full)]
    rows_R = torch.linspace(0, shape_LHK[0] - 1, min(CHECKED_ROWS, shape_LHK[0]), device=device).long()

    def scene(page_lists: list[tuple[int, ...]]) -> _Scene:
        table = page_table(page_lists, (), device, width=num_pages)
        arguments = (q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, table)
        expected = []
        for segment, pages in enumerate(page_lists):
            keys, values = (
                torch.cat([*(pool[page] for page in pages), own[segment]]).float()
                for pool, own in ((k_pages_PLHK, k_GLHK), (v_pages_PLHK, v_GLHK))
            )
            expected.append(_formula(q_GLHK[segment, rows_R].float(), keys, values))
        return _Scene(arguments, rows_R, torch.stack(expected))

    return scene(full), scene(growing)


def _formula(q_RHK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
    logits_HRT = torch.einsum("rhk,thk->hrt", q_RHK, k_THK) * q_RHK.shape[-1] ** -0.5
    return torch.einsum("hrt,thk->rhk", logits_HRT.softmax(-1), v_THK)


def _check(candidate: Candidate, scenes: Sequence[_Scene]) -> Trial:
    try:
        errors = [scene.error(candidate.attend(*scene.arguments)) for scene in scenes]
    except _refusals() as error:
        sentence = str(error).strip().partition("\n")[0]
        return Trial(candidate.name, refusal=f"{type(error).__name__}: {sentence}")
    gate, worst = GATES[scenes[0].arguments[0].dtype], max(errors, key=lambda error: (math.isnan(error), error))
    wrong = None if worst <= gate else f"relative error {worst:.1e}, {gate:.1e} is allowed"
    return Trial(candidate.name, worst, refusal=wrong)


def _refusals() -> tuple[type[Exception], ...]:
    """What PyTorch and Triton raise where a way does not work; anything else is our bug."""
    if find_spec("triton") is None:
        return RuntimeError, ValueError
    from triton.errors import TritonError  # noqa: PLC0415 - Triton loads only where it runs

    return RuntimeError, ValueError, TritonError


def _kernels(device: torch.device, dtype: torch.dtype) -> list[Candidate]:
    from kernels import triton_attention as ours  # noqa: PLC0415 - Triton loads only where it runs

    def through(tiling: ours.Tiling) -> PagedAttention:
        def attend(q: Tensor, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, table: PageTable) -> Tensor:
            pages_GW, num_pages_G = table.pages_GW, table.num_pages_G
            return ours.paged_attention_triton(q, k, v, k_pages, v_pages, pages_GW, num_pages_G, tiling=tiling)

        return attend

    if dtype == torch.float32:
        return [Candidate("triton-float32", through(ours.FLOAT32_TILING))]
    found = [Candidate("triton-pointers", through(ours.HALF_TILING))]
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if capability[0] in (9, 10):
        found.append(Candidate("triton-tma", through(ours.HOPPER_TILING)))
    return found


def _gather(own_GLHK: Tensor, pages_PLHK: Tensor, pages_GW: Tensor) -> Tensor:
    """Each segment's pages and then its own tokens, [G, (W + 1) * L, H, K]."""
    num_segments, num_tokens, *heads = own_GLHK.shape
    width = pages_GW.shape[1]
    gathered = own_GLHK.new_empty(num_segments, width + 1, num_tokens, *heads)
    for segment in range(num_segments):
        torch.index_select(pages_PLHK[:, :num_tokens], 0, pages_GW[segment], out=gathered[segment, :width])
        gathered[segment, width] = own_GLHK[segment]
    return gathered.flatten(1, 2)
