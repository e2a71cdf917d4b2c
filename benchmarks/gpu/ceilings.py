"""What the device can do at all: copying memory, and bf16 matrix products of the sizes that the model has."""

import torch
from torch.nn.functional import linear

from benchmarks.gpu.record import Section, Table
from benchmarks.gpu.timing import Bench


def measure(bench: Bench, section: Section) -> None:
    """Fill ``section``; leaves the copy rate for later sections."""
    rate = copy_rate(bench)
    print(f"ceilings copy: {rate / 1e9:.0f} GB/s", flush=True)
    section.tables.append(Table("Device memory, read and written", ("what", "GB/s"), (("copy", rate / 1e9),)))
    sizes = bench.sizes
    dim, ffn = sizes.transformer.dim, sizes.transformer.ffn_dim
    side = sizes.matmul_side
    shapes = [(side, side, side)]
    shapes += [(rows, *layer) for rows in sizes.matmul_rows for layer in ((3 * dim, dim), (ffn, dim), (dim, ffn))]
    rows = []
    for num_rows, num_outputs, num_inputs in shapes:
        row = _product(bench, num_rows, num_outputs, num_inputs)
        print(f"ceilings product {num_rows} x {num_outputs} x {num_inputs}: {row[-1]:.1f} TFLOP/s", flush=True)
        rows.append(row)
    columns = ("rows M", "outputs N", "inputs K", "median ms", "p95 ms", "TFLOP/s")
    section.tables.append(Table(f"Matrix products, {_name(bench.dtype)}", columns, tuple(rows)))


def copy_rate(bench: Bench) -> float:
    """Bytes a second that a copy reads and writes together; measured once a run."""
    if bench.copy_bytes_per_s is None:
        source = torch.zeros(bench.sizes.copy_bytes, dtype=torch.uint8, device=bench.device)
        target = torch.empty_like(source)
        timing = bench.interleaved({"copy": lambda: target.copy_(source)})["copy"]
        bench.copy_bytes_per_s = 2 * bench.sizes.copy_bytes / timing.median_s
    return bench.copy_bytes_per_s


def _product(
    bench: Bench, num_rows: int, num_outputs: int, num_inputs: int
) -> tuple[int, int, int, float, float, float]:
    x = torch.randn(num_rows, num_inputs, dtype=bench.dtype, device=bench.device)
    weight = torch.randn(num_outputs, num_inputs, dtype=bench.dtype, device=bench.device)
    timing = bench.interleaved({"product": lambda: linear(x, weight)})["product"]
    rate = 2 * num_rows * num_outputs * num_inputs / timing.median_s
    return num_rows, num_outputs, num_inputs, timing.median_s * 1e3, timing.p95_s * 1e3, rate / 1e12


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
