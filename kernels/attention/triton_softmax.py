"""What the attention kernels share: how work is cut, and a running softmax that takes in one tile of keys at a time.

An online softmax in float32 and base 2 (Dao et al., FlashAttention-2, arXiv 2307.08691, algorithm 1). Keys and values
may be of a narrower type than what is computed with, with a scale a row: a key's scale is applied to its logits, a
value's to its weights, which rounds nothing that was not rounded before.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool;
inside kernels M queries and N keys of a tile, K padded to a power of two.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.attention.table import PageTable
from kernels.dispatch import is_interpreted
from kernels.numbers import FP8


@dataclass(frozen=True)
class Tiling:
    """How a kernel cuts its work. All sizes are powers of two, at least 16."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int
    """Tiles of keys and values in flight."""
    descriptors: bool = False
    """Load pages through tensor descriptors (TMA). Needs a head width that is a power of two and rows and pages that
    start at multiples of 16 bytes."""


HOPPER_TILING = Tiling(queries=128, keys=128, num_warps=8, num_stages=2, descriptors=True)
"""Half types where TMA and 160 KiB of shared memory are: compute capabilities 9.x and 10.x."""
HALF_TILING = Tiling(queries=128, keys=64, num_warps=8, num_stages=3)
"""Half types anywhere else: 96 KiB of shared memory at most, which compute capability 8.9 has too."""
SLIM_TILING = Tiling(queries=128, keys=32, num_warps=8, num_stages=3)
"""The same with fewer registers, for compute capability 12.x and for products in 8 bits."""
NARROW_TILING = Tiling(queries=128, keys=32, num_warps=8, num_stages=2)
"""Pages in 8 bits: a tile in flight is held in those as well as in the 16 that it is multiplied in."""
NARROW_SINGLE_TILING = Tiling(queries=128, keys=32, num_warps=8, num_stages=1)
"""The same on compute capability 12.x, where another tile in flight takes more registers than there are."""
FLOAT32_TILING = Tiling(queries=32, keys=32, num_warps=8, num_stages=2)
"""Exact products, without tensor cores: for comparisons, not for speed."""

REST_N = tl.constexpr(32)
"""Rows of the tiles that take what is left of a shorter page. Few, so that its code takes no more registers than that
of the full tiles, and never through a descriptor, which would read on to the end of a tile."""
_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.constexpr_function
def tail_rows(num_rows, block_rows, descriptors):
    """Rows of the tile that takes what full tiles leave of a page. A descriptor loads tiles of one size only."""
    return block_rows if descriptors else max(16, 1 << (num_rows - 1).bit_length())


@triton.jit
def load_rows(
    source, page, row, head, inside_N, page_stride, row_stride,
    K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """One head of ``BLOCK_N`` rows of a page, [N, K]. If masked, rows outside ``inside_N`` are zeros and are not read.

    With a descriptor the hardware reads all rows but those outside the descriptor, which it takes for zeros.
    """
    if DESCRIPTORS:
        rows_NK = source.load([page, row, head * K]).reshape(BLOCK_N, BLOCK_K)
    else:
        n, k = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
        start = source + page.to(tl.int64) * page_stride + row * row_stride + head * K
        addresses_NK = start + n[:, None] * row_stride + k[None, :]
        if MASKED:
            rows_NK = tl.load(addresses_NK, mask=inside_N[:, None] & (k < K)[None, :], other=0.0)
        elif K != BLOCK_K:
            rows_NK = tl.load(addresses_NK, mask=(k < K)[None, :], other=0.0)
        else:
            rows_NK = tl.load(addresses_NK)
    return rows_NK


@triton.jit
def at_scales(scales_ptr, page, head, row, page_stride, head_stride):
    """Where the scales of a tile begin; None where there are none."""
    return scales_ptr + page.to(tl.int64) * page_stride + head * head_stride + row if scales_ptr is not None else None


@triton.jit
def _load_scales(scales_ptr, inside_N, BLOCK_N: tl.constexpr, MASKED: tl.constexpr):
    """The scales of a tile's rows. If masked, those outside ``inside_N`` are not read."""
    n = tl.arange(0, BLOCK_N)
    return tl.load(scales_ptr + n, mask=inside_N, other=1.0) if MASKED else tl.load(scales_ptr + n)


@triton.jit
def long_and_short(num_tokens_ptr, num_pages, L: tl.constexpr):
    """How many pages of a row come before the first one of which fewer than L tokens count, and how many of that one
    do; 0 if there is no such page. It costs one load a program: 32 pages are looked at together."""
    num_long = num_pages
    for start in range(0, num_pages, 32):
        slot_W = start + tl.arange(0, 32)
        is_short_W = tl.load(num_tokens_ptr + slot_W, mask=slot_W < num_pages, other=L) < L
        num_long = tl.minimum(num_long, tl.min(tl.where(is_short_W, slot_W, num_pages), 0))
    return num_long, tl.load(num_tokens_ptr + num_long, mask=num_long < num_pages, other=0)


@triton.jit
def attend_rows(
    q_MK, q_scale_M, keys, key_page, key_scales, values, value_page, value_scales,
    row, head, inside_N, offset_N,
    k_page_stride, k_row_stride, v_page_stride, v_row_stride,
    largest_M, total_M, sum_MK,
    K: tl.constexpr, BLOCK_N: tl.constexpr, KIND: tl.constexpr, MASKED: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Take one tile of keys into the running softmax. Returns its new largest logit, total and weighted sum.

    ``q_scale_M``, ``key_scales`` and ``value_scales`` (addresses of the scales of the tile's first row) are None where
    numbers are what they are. Values are multiplied as ``KIND``. If masked, rows outside ``inside_N`` are not read, and
    ``offset_N`` is added to the products of queries and keys, before the scale: -inf takes a key out.
    """
    BLOCK_K: tl.constexpr = q_MK.shape[1]
    SCALE: tl.constexpr = _LOG2_E / K**0.5
    k_NK = load_rows(
        keys, key_page, row, head, inside_N, k_page_stride, k_row_stride, K, BLOCK_K, BLOCK_N, MASKED, DESCRIPTORS
    ).to(q_MK.dtype)
    logits_MN = tl.dot(q_MK, tl.trans(k_NK), input_precision="ieee")
    if key_scales is not None:
        logits_MN = logits_MN.to(tl.float32) * _load_scales(key_scales, inside_N, BLOCK_N, MASKED)[None, :]
    if MASKED:
        logits_MN += offset_N[None, :]
    # The scale is applied within the exponent, where it makes one multiply-add with the subtraction.
    if q_scale_M is None:
        new_largest_M = tl.maximum(largest_M, tl.max(logits_MN, 1) * SCALE)
        weights_MN = tl.math.exp2(logits_MN * SCALE - new_largest_M[:, None])
    else:
        scale_M = q_scale_M * SCALE
        new_largest_M = tl.maximum(largest_M, tl.max(logits_MN, 1) * scale_M)
        weights_MN = tl.math.exp2(logits_MN * scale_M[:, None] - new_largest_M[:, None])
    shrink_M = tl.math.exp2(largest_M - new_largest_M)
    total_M = total_M * shrink_M + tl.sum(weights_MN, 1)
    sum_MK = sum_MK * shrink_M[:, None]
    v_NK = load_rows(
        values, value_page, row, head, inside_N, v_page_stride, v_row_stride, K, BLOCK_K, BLOCK_N, MASKED, DESCRIPTORS
    ).to(KIND)
    if value_scales is not None:
        weights_MN *= _load_scales(value_scales, inside_N, BLOCK_N, MASKED)[None, :]
    sum_MK = tl.dot(weights_MN.to(KIND), v_NK, sum_MK, input_precision="ieee")
    return new_largest_M, total_M, sum_MK


@triton.jit
def begin(
    q_ptr, segment_stride, row_stride,
    L: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """The program's queries [M, K], and a running softmax that has seen nothing: largest logit, total, weighted sum.

    ``AS_FLOAT32`` is for Triton's interpreter, which takes the bits of bfloat16 operands for integers.
    """
    row_M, channel_K = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    start = q_ptr + tl.program_id(1).to(tl.int64) * segment_stride + tl.program_id(2) * K
    inside_MK = (row_M < L)[:, None] & (channel_K < K)[None, :]
    q_MK = tl.load(start + row_M[:, None] * row_stride + channel_K[None, :], mask=inside_MK, other=0.0)
    if AS_FLOAT32:
        q_MK = q_MK.to(tl.float32)
    largest_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
    return q_MK, largest_M, tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M, BLOCK_K], tl.float32)


@triton.jit
def store(out_ptr, out_MK, L: tl.constexpr, H: tl.constexpr, K: tl.constexpr):
    """Write the program's rows into packed [G, L, H, K]."""
    BLOCK_M: tl.constexpr = out_MK.shape[0]
    BLOCK_K: tl.constexpr = out_MK.shape[1]
    row_M, channel_K = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    start = out_ptr + tl.program_id(1).to(tl.int64) * (L * H * K) + tl.program_id(2) * K
    inside_MK = (row_M < L)[:, None] & (channel_K < K)[None, :]
    rounded_MK = out_MK.to(out_ptr.dtype.element_ty)
    tl.store(start + row_M[:, None] * (H * K) + channel_K[None, :], rounded_MK, mask=inside_MK)


def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU; (0, 0) of anything else, where kernels run in Triton's interpreter."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def tilings_on(
    capability: tuple[int, int], dtype: torch.dtype, *, fp8_pages: bool = False, int8: bool = False
) -> tuple[Tiling, ...]:
    """Tilings of paged attention that a GPU can run, compiled without spills: by pointers first, then by descriptors.

    Args:
        capability: compute capability of the GPU.
        dtype: of the queries.
        fp8_pages: pages are held in 8 bits.
        int8: queries and keys are multiplied in 8 bits.
    """
    if dtype == torch.float32:
        return (FLOAT32_TILING,)
    by_pointers = pointer_tiling(capability, fp8_pages=fp8_pages, int8=int8)
    return (by_pointers, HOPPER_TILING) if capability[0] in (9, 10) else (by_pointers,)


def pointer_tiling(capability: tuple[int, int], *, fp8_pages: bool, int8: bool) -> Tiling:
    """The tiling for half types without descriptors.

    A thread has 255 registers at most. For bfloat16, 4680 tokens and heads of 128, Triton 3.7.1 and its assembler take
    on 8.0, 8.9, 9.0 and 12.0: of pages in 16 bits 255, 255, 194 and 255; of pages in 8 bits 255, 170 and 254 from 8.9
    on; of products in 8 bits 255, 254, 227 and 254. None of it spills, and at most 96 KiB of shared memory are taken
    but for 128 KiB on 9.0. With 64 keys a thread spills 64 bytes on 12.0, or 160 of pages in 8 bits, which spill 88
    with 32 keys and two stages too. Which of the tilings that do not spill is the fastest was not measured.
    """
    is_short_of_registers = capability[0] == 12
    if int8:
        return SLIM_TILING
    if fp8_pages:
        return NARROW_SINGLE_TILING if is_short_of_registers else NARROW_TILING
    return SLIM_TILING if is_short_of_registers else HALF_TILING


def choose_tiling(q: Tensor, *sources: Tensor) -> Tiling:
    """What suits the type of the queries, the device, and how keys and values lie."""
    fp8_pages, int8 = (any(x.dtype == kind for x in sources) for kind in (FP8, torch.int8))
    by_pointers, *by_descriptors = tilings_on(capability_of(q.device), q.dtype, fp8_pages=fp8_pages, int8=int8)
    return by_descriptors[0] if by_descriptors and all(map(suits_descriptors, sources)) else by_pointers


def columns(table: PageTable) -> tuple[Tensor, Tensor, Tensor, int]:
    """What a kernel reads of a page table: pages, tokens of each, number of pages, and the stride of the first two."""
    read = (table.pages_GW, table.num_tokens_GW, table.num_pages_G)
    assert all(column.dtype == torch.int32 for column in read) and table.num_pages_G.is_contiguous()
    assert table.pages_GW.stride() == table.num_tokens_GW.stride() and table.pages_GW.stride(1) == 1
    return (*read, table.pages_GW.stride(0))


def descriptor(x_PLHK: Tensor, num_tokens: int, tiling: Tiling) -> TensorDescriptor:
    """Describe the first tokens of each page, heads joined; what lies outside reads as zeros."""
    num_pages, _, num_heads, width = x_PLHK.shape
    shape = [num_pages, num_tokens, num_heads * width]
    return TensorDescriptor(x_PLHK, shape, [*x_PLHK.stride()[:2], 1], [1, tiling.keys, width])


def grid(q_GLHK: Tensor, tiling: Tiling) -> tuple[int, int, int]:
    """Programs of a kernel: tiles of queries, segments, heads."""
    return triton.cdiv(q_GLHK.shape[1], tiling.queries), q_GLHK.shape[0], q_GLHK.shape[2]


def constants(q_GLHK: Tensor, tiling: Tiling, key_type: torch.dtype | None = None) -> dict[str, int | bool]:
    """What all attention kernels are compiled for, and how; ``key_type`` is that of the products with queries."""
    num_tokens, num_heads, width = q_GLHK.shape[1:]
    return {
        "L": num_tokens,
        "H": num_heads,
        "K": width,
        "BLOCK_M": tiling.queries,
        "BLOCK_N": tiling.keys,
        "BLOCK_K": padded(width, key_type or q_GLHK.dtype),
        "AS_FLOAT32": is_interpreted(),
        "num_warps": tiling.num_warps,
        "num_stages": tiling.num_stages,
    }


def padded(width: int, dtype: torch.dtype) -> int:
    """Triton's tiles are powers of two, and its matrix products take at least 16 numbers, of integers 32."""
    return max(32 if dtype == torch.int8 else 16, 1 << (width - 1).bit_length())


def suits_descriptors(x_PLHK: Tensor) -> bool:
    """Whether pages can be loaded through descriptors: see ``Tiling.descriptors``."""
    width = x_PLHK.shape[-1]
    starts = (x_PLHK.data_ptr(), *(stride * x_PLHK.element_size() for stride in x_PLHK.stride()[:2]))
    return width == padded(width, x_PLHK.dtype) and not any(start % 16 for start in starts)
