"""Rounding to e4m3 as Triton code; the formula is ``kernels.fp8.formula.quantise_rows_reference``.

Letters: X rows of any shape, E width of a row, M rows and N columns of a tile.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.numbers import FLOOR, FP8, FP8_MAX

_FLOOR, _LARGEST = tl.constexpr(FLOOR), tl.constexpr(FP8_MAX)


@triton.jit
def quantise(x_MN):
    """Float32 rows as e4m3, and the scale of each row."""
    largest_M = tl.maximum(tl.max(tl.abs(x_MN), 1), _FLOOR)
    # Exact divisions, so that the formula's scales come out bit for bit; there are few of them.
    x8_MN = (x_MN * tl.div_rn(_LARGEST, largest_M)[:, None]).to(tl.float8e4nv)
    return x8_MN, tl.div_rn(largest_M, _LARGEST)


@triton.jit
def quantise_rows_kernel(x_ptr, out_ptr, scale_ptr, E: tl.constexpr, BLOCK_E: tl.constexpr, OF_GELU: tl.constexpr):
    """Round one row. The grid is (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    channel_1E = tl.arange(0, BLOCK_E)[None, :]
    x_1E = tl.load(x_ptr + row * E + channel_1E, mask=channel_1E < E, other=0.0).to(tl.float32)
    if OF_GELU:
        # x / 2 * (1 + tanh(u)) is x * sigmoid(2 u).
        x_1E *= tl.sigmoid(1.5957691216057308 * (x_1E + 0.044715 * x_1E * x_1E * x_1E))
    x8_1E, scale_1 = quantise(x_1E)
    tl.store(out_ptr + row * E + channel_1E, x8_1E, mask=channel_1E < E)
    tl.store(scale_ptr + row + tl.arange(0, 1), scale_1)


def quantise_rows_triton(x_XE: Tensor, *, of_gelu: bool = False) -> tuple[Tensor, Tensor]:
    """See ``kernels.fp8.formula.quantise_rows``."""
    x_XE = x_XE.contiguous()
    width = x_XE.shape[-1]
    out_XE = torch.empty(x_XE.shape, dtype=FP8, device=x_XE.device)
    scales_X1 = torch.empty((*x_XE.shape[:-1], 1), dtype=torch.float32, device=x_XE.device)
    if out_XE.numel():
        block = triton.next_power_of_2(width)
        quantise_rows_kernel[(scales_X1.numel(),)](
            x_XE, out_XE, scales_X1, E=width, BLOCK_E=block, OF_GELU=of_gelu, num_warps=8
        )
    return out_XE, scales_X1
