"""Times of passes and decoders with random weights, by the sections of ``benchmarks.gpu``, and facts of the machine."""

import time

import torch

from benchmarks.gpu import decoders, passes
from benchmarks.gpu.machine import describe
from benchmarks.gpu.passes import stage_name
from benchmarks.gpu.record import Section
from benchmarks.gpu.sizes import DRY, REAL
from benchmarks.gpu.smoke.check import Check
from benchmarks.gpu.timing import Bench

SOFT = 0.7
"""Of the time for a section: after that it makes no more runs; what it has begun may take the rest."""


def machine(devices: tuple[str, ...]) -> list[dict[str, str]]:
    """Names and versions of each device. Raises ``ValueError`` when one is not there."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for name in devices:
        if name != "cpu" and int(name.removeprefix("cuda:")) >= found:
            raise ValueError(f"device {name} is not there: torch finds {found} CUDA devices")
    return [describe(torch.device(name)) for name in devices]


def time_passes(device: str, size: str, limit_s: float) -> Check:
    """Denoise pass, cache pass and forwards of several stages over a full window, ours and the baseline."""
    bench, section = _bench(device, size, limit_s), Section("passes", "Passes of the transformer")
    passes.measure(bench, section)
    times = bench.passes
    if times is None:
        return _check(section, "not all of both passes were measured", {}, passed=False)
    numbers = {
        "denoise_ms": times.denoise_s * 1e3,
        "cache_ms": times.cache_s * 1e3,
        "baseline_denoise_ms": times.baseline_denoise_s * 1e3,
        "baseline_cache_ms": times.baseline_cache_s * 1e3,
    }
    numbers |= {f"{stage_name(k + 1)}_ms": stage_s * 1e3 for k, stage_s in enumerate(times.stages_s)}
    result = f"D {numbers['denoise_ms']:.1f} ms, C {numbers['cache_ms']:.1f} ms"
    if times.stages_s:
        result += f", {stage_name(len(times.stages_s))} {times.stages_s[-1] * 1e3:.1f} ms"
    return _check(section, result, numbers, passed=True)


def time_decoders(device: str, size: str, limit_s: float) -> Check:
    """Seconds a block of each decoder, from latents to planes on the host."""
    bench, section = _bench(device, size, limit_s), Section("decoders", "Decoders")
    decoders.measure(bench, section)
    result = ", ".join(f"{name} {took_s * 1e3:.1f} ms a block" for name, took_s in bench.decode_s.items())
    numbers = {f"{name}_ms": took_s * 1e3 for name, took_s in bench.decode_s.items()}
    return _check(section, result, numbers, passed=bench.decode_s.keys() == bench.sizes.decoders.keys())


def _bench(device_name: str, size: str, limit_s: float) -> Bench:
    torch.manual_seed(0)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # kernels are launched on the current one
    else:
        torch.set_num_threads(1)  # tensors are tiny; threads would wait for each other
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    sizes = REAL if size == "real" else DRY
    return Bench(device=device, dtype=dtype, sizes=sizes, deadline_s=time.monotonic() + SOFT * limit_s)


def _check(section: Section, result: str, numbers: dict[str, float], *, passed: bool) -> Check:
    """What a section left. What it could not run is told beside the result, and is a failure where it raised."""
    left_out = [f"not run: {line}" for line in section.not_run]
    return Check(
        name=section.name,
        result=result + (f"; {len(left_out)} cases did not run" if left_out else ""),
        passed=passed,
        numbers=numbers,
        tables=tuple(section.tables),
        notes=(*section.notes, *left_out),
    )
