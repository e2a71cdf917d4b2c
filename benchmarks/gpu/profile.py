"""Looks into one forward: where the host waits for the device, and which kernels take the time."""

from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.record import Section, Table
from benchmarks.gpu.timing import Bench

RANGE = "one forward"
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls during which the host stands still until the device has come that far."""
OTHERS = (
    "aten::item",
    "cudaGraphLaunch",
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaMemcpyAsync",
)
COPIES = ("Memcpy DtoH", "Memcpy HtoD")
NUM_KERNELS = 15
NAME_LENGTH = 100


def profile_forward(bench: Bench, section: Section, forward: Callable[[], object]) -> None:
    """Add two tables to ``section``: calls of the host in a warm forward of C and D, and its slowest kernels."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
    for _ in range(3):
        forward()
    bench.finish()
    with profile(activities=activities) as recorded:
        with record_function(RANGE):
            forward()
        bench.finish()
    events = recorded.events()
    assert events is not None
    on_host = [event for event in events if event.device_type.name == "CPU"]
    whole = next(event.time_range for event in on_host if event.name == RANGE)
    inside = [e for e in on_host if whole.start <= e.time_range.start and e.time_range.end <= whole.end]
    calls = Counter(event.name for event in inside)
    on_device = [event for event in events if event.device_type.name == "CUDA" and event.name != RANGE]
    if bench.on_gpu and not on_device:
        section.skip("profile", "the profiler saw nothing of the device")
        return
    copies = Counter(copy for event in on_device for copy in COPIES if event.name.startswith(copy))
    rows = [(name, calls[name]) for name in (*WAITS, *OTHERS)] + [(name, copies[name]) for name in COPIES]
    waits = sum(calls[name] for name in WAITS)
    print(f"passes host waits in one forward: {waits}", flush=True)
    for name, count in rows:
        print(f"  {name:<24}{count:>6}", flush=True)
    section.tables.append(Table("Calls of the host in one forward of C+D", ("call", "count"), tuple(rows)))
    section.notes.append(
        f"The host waits for the device {waits} times in a forward of C+D ({', '.join(WAITS)}). A copy to the device "
        "from pageable memory (Memcpy HtoD) does not wait for the device: the driver takes small ones over at once."
    )
    device_us: Counter[str] = Counter()
    for event in on_device:
        device_us[event.name] += round(event.time_range.elapsed_us())
    count_by_name = Counter(event.name for event in on_device)
    total_us = sum(device_us.values())
    kernels = tuple(
        (name[:NAME_LENGTH], count_by_name[name], microseconds / 1e3, microseconds / total_us)
        for name, microseconds in device_us.most_common(NUM_KERNELS)
        if microseconds
    )
    if kernels:
        columns = ("kernel", "launches", "ms", "of the device's time")
        section.tables.append(Table("Where the time of one forward of C+D goes", columns, kernels))
