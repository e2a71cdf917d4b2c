"""How long work takes on the device: several works in turns, by CUDA events; by the clock on a CPU.

Before every timed run a buffer larger than the L2 cache is written, so that no run finds its operands there; while the
device writes, the host launches what comes next, so that launches are not measured unless they are the slower part.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import torch

from benchmarks.gpu.sizes import Sizes

Work = Callable[[], object]
MIN_WARM_UPS = 3
MIN_RUNS = 5
NUM_COUNTED = 20
"""Runs from which a 95th percentile says something."""


@dataclass(frozen=True)
class Timing:
    """Seconds of the timed runs."""

    runs_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """What half of the runs stay below."""
        return median(self.runs_s)

    @property
    def p95_s(self) -> float:
        """What 95 % of the runs stay below; the slowest run when they are few."""
        ordered = sorted(self.runs_s)
        return ordered[-1] if len(ordered) < NUM_COUNTED else ordered[int(0.95 * (len(ordered) - 1) + 0.5)]


@dataclass(frozen=True, kw_only=True)
class PassTimes:
    """Seconds of the passes over a full window, for what is derived from them."""

    denoise_s: float
    cache_s: float
    stages_s: tuple[float, ...]
    """At index k - 1: one forward of k cache passes and k denoise passes."""
    baseline_denoise_s: float
    baseline_cache_s: float


@dataclass
class Bench:
    """One run: where it computes, at which sizes, until when, and what later sections need of earlier ones."""

    device: torch.device
    dtype: torch.dtype
    sizes: Sizes
    deadline_s: float = float("inf")
    """When the running section must be over, on the monotonic clock."""
    specialised: bool = False
    """Whether to time the warp-specialised kernel too, which has never run and could stand still."""
    copy_bytes_per_s: float | None = None
    passes: PassTimes | None = None
    decode_s: dict[str, float] = field(default_factory=dict)
    """Seconds from the latents of a block to planes on the host, by decoder."""

    @property
    def on_gpu(self) -> bool:
        """False in a dry run."""
        return self.device.type == "cuda"

    @property
    def compiler(self) -> str:
        """Backend of torch.compile: a dry run traces, and compiles nothing."""
        return "inductor" if self.on_gpu else "eager"

    def left_s(self) -> float:
        """Seconds until the deadline; negative behind it."""
        return self.deadline_s - time.monotonic()

    def finish(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def interleaved(self, works: Mapping[str, Work]) -> dict[str, Timing]:
        """Time all works in turns, after warm-up, as often as ``sizes.runs`` says or as the deadline allows."""
        round_s = sum(self._warm_up(work) for work in works.values())
        runs = min(self.sizes.runs, max(MIN_RUNS, self.left_s() / max(round_s, 1e-6)))
        flushed = torch.empty(self.sizes.flush_bytes, dtype=torch.uint8, device=self.device)
        clocks: dict[str, list[Callable[[], float]]] = {name: [] for name in works}
        for _ in range(int(runs)):
            for name, work in works.items():
                flushed.zero_()
                clocks[name].append(self._clocked(work))
        self.finish()
        return {name: Timing(tuple(read() for read in reads)) for name, reads in clocks.items()}

    def _warm_up(self, work: Work) -> float:
        """Run until everything is compiled and clocks are up. Returns the seconds of the last run."""
        work()
        self.finish()
        began_s, count, last_s = time.perf_counter(), 0, 0.0
        while count < MIN_WARM_UPS or time.perf_counter() - began_s < self.sizes.warm_up_s:
            run_began_s = time.perf_counter()
            work()
            self.finish()
            last_s, count = time.perf_counter() - run_began_s, count + 1
        return last_s

    def _clocked(self, work: Work) -> Callable[[], float]:
        """Run ``work``; the answer reads its seconds once the device has finished."""
        if not self.on_gpu:
            began_s = time.perf_counter()
            work()
            took_s = time.perf_counter() - began_s
            return lambda: took_s
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        return lambda: begin.elapsed_time(end) / 1000
