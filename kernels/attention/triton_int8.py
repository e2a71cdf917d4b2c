"""Attention with keys and queries in 8 bits as Triton kernels. The twin is in ``kernels.attention.int8``.

One kernel writes the keys that each segment sees, smoothed, as integers into a buffer; the other one attends to that
buffer and to the values where they lie. The buffer costs one reading of the keys and half a writing; the products with
queries then run at twice the rate of 16 bits, where Triton has instructions for them: on compute capability 10.x it
compiles them to those of older GPUs.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
W columns of a page table, S slots of a segment: its W pages and, last, its own tokens; inside kernels M queries and
N keys of a tile.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.formula import mean_keys
from kernels.attention.table import PageTable
from kernels.attention.triton_softmax import (
    REST_N,
    Tiling,
    at_scales,
    attend_rows,
    begin,
    choose_tiling,
    columns,
    constants,
    descriptor,
    grid,
    long_and_short,
    store,
    tail_rows,
)
from kernels.fp8.formula import PageScales
from kernels.numbers import FLOOR, FP8, INT8_MAX

_FLOOR, _LARGEST = tl.constexpr(FLOOR), tl.constexpr(INT8_MAX)


@triton.jit
def _integers(x, largest):
    """Numbers as integers of -127 .. 127, where ``largest`` becomes 127; ties go up."""
    return tl.floor(x * tl.div_rn(_LARGEST, largest) + 0.5).to(tl.int8)


@triton.jit(do_not_specialize=["pages_ptr", "num_tokens_ptr", "num_pages_ptr", "table_stride"])
def smooth_keys_kernel(
    k_own_ptr, k_pages_ptr, k_scales_ptr, mean_ptr, ints_ptr, int_scales_ptr,
    pages_ptr, num_tokens_ptr, num_pages_ptr, table_stride,
    segment_stride, row_stride, page_stride, page_row_stride, scale_page_stride, scale_head_stride,
    H: tl.constexpr, K: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Subtract the mean from one token's keys, and round each head to integers. The grid is (L, S, G).

    ``ints_ptr`` takes [G, S, L, H, K], ``int_scales_ptr`` [G, S, H, L]. Slots without a page, and rows for tokens that
    do not count, are left as they are.
    """
    token, slot, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_tokens, num_slots = tl.num_programs(0), tl.num_programs(1)
    is_own = slot == num_slots - 1
    if not is_own and slot >= tl.load(num_pages_ptr + segment):
        return
    head_H, channel_K = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_K)
    inside_HK = (head_H < H)[:, None] & (channel_K < K)[None, :]
    at_HK = head_H[:, None] * K + channel_K[None, :]
    if not is_own and token >= tl.load(num_tokens_ptr + segment * table_stride + slot):
        return
    if is_own:
        start = segment.to(tl.int64) * segment_stride + token * row_stride
        k_HK = tl.load(k_own_ptr + start + at_HK, mask=inside_HK, other=0.0).to(tl.float32)
    else:
        page = tl.load(pages_ptr + segment * table_stride + slot).to(tl.int64)
        start = page * page_stride + token * page_row_stride
        k_HK = tl.load(k_pages_ptr + start + at_HK, mask=inside_HK, other=0.0).to(tl.float32)
        if k_scales_ptr is not None:
            at_H = page * scale_page_stride + head_H * scale_head_stride + token
            k_HK *= tl.load(k_scales_ptr + at_H, mask=head_H < H, other=0.0)[:, None]
    k_HK -= tl.load(mean_ptr + segment * (H * K) + at_HK, mask=inside_HK, other=0.0)
    largest_H = tl.maximum(tl.max(tl.abs(k_HK), 1), _FLOOR)
    place = (segment * num_slots + slot).to(tl.int64)
    tl.store(ints_ptr + (place * num_tokens + token) * (H * K) + at_HK, _integers(k_HK, largest_H[:, None]), inside_HK)
    tl.store(int_scales_ptr + (place * H + head_H) * num_tokens + token, tl.div_rn(largest_H, _LARGEST), head_H < H)


@triton.jit(do_not_specialize=["pages_ptr", "num_tokens_ptr", "num_pages_ptr", "table_stride", "num_slots"])
def int8_attention_kernel(
    q_ptr, k_ints, v_own, v_pages, k_ints_ptr, v_pages_ptr, k_scales_ptr, v_scales_ptr, out_ptr,
    pages_ptr, num_tokens_ptr, num_pages_ptr, table_stride, num_slots,
    q_segment_stride, q_row_stride, v_segment_stride, v_row_stride,
    page_stride, page_row_stride, scale_page_stride, scale_head_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    DESCRIPTORS: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries. The grid is (tiles, G, H); the order of the keys is the paged kernel's.

    ``k_ints`` .. ``v_pages`` are pointers, or descriptors of [pages, L, H * K]; of keys a page is a slot of a segment.
    What is left of a shorter page is read by the pointers.
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    q_MK, largest_M, total_M, sum_MK = begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    KIND: tl.constexpr = q_MK.dtype
    q_MK = q_MK.to(tl.float32)
    q_largest_M = tl.maximum(tl.max(tl.abs(q_MK), 1), _FLOOR)
    q_MK, q_scale_M = _integers(q_MK, q_largest_M[:, None]), q_largest_M / _LARGEST
    FULL: tl.constexpr = L // BLOCK_N
    TAIL: tl.constexpr = L % BLOCK_N
    pages_ptr += segment * table_stride
    num_tokens_ptr += segment * table_stride
    num_pages = tl.load(num_pages_ptr + segment)
    num_long, short = long_and_short(num_tokens_ptr, num_pages, L)
    first_slot = segment * num_slots
    own_slot = first_slot + num_slots - 1

    if FULL > 0:
        for tile in range(FULL):
            row = tile * BLOCK_N
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, q_scale_M, k_ints, own_slot, at_scales(k_scales_ptr, own_slot, head, row, H * L, L),
                v_own, segment, None, row, head, None, None,
                L * H * K, H * K, v_segment_stride, v_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, KIND, False, DESCRIPTORS,
            )  # fmt: skip
        for tile in range(num_long * FULL + short // BLOCK_N):
            slot, row = first_slot + tile // FULL, tile % FULL * BLOCK_N
            page = tl.load(pages_ptr + tile // FULL)
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, q_scale_M, k_ints, slot, at_scales(k_scales_ptr, slot, head, row, H * L, L),
                v_pages, page, at_scales(v_scales_ptr, page, head, row, scale_page_stride, scale_head_stride),
                row, head, None, None,
                L * H * K, H * K, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, KIND, False, DESCRIPTORS,
            )  # fmt: skip
    for index in range(num_long, num_pages):
        slot, page, num_tokens = first_slot + index, tl.load(pages_ptr + index), tl.load(num_tokens_ptr + index)
        first = tl.where(index == num_long, num_tokens // BLOCK_N * BLOCK_N, 0)
        for row in tl.range(first, num_tokens, REST_N, num_stages=1):
            inside_N = tl.arange(0, REST_N) < num_tokens - row
            offset_N = tl.where(inside_N, 0.0, float("-inf"))
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, q_scale_M, k_ints_ptr, slot, at_scales(k_scales_ptr, slot, head, row, H * L, L),
                v_pages_ptr, page, at_scales(v_scales_ptr, page, head, row, scale_page_stride, scale_head_stride),
                row, head, inside_N, offset_N,
                L * H * K, H * K, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, REST_N, KIND, True, False,
            )  # fmt: skip
    if TAIL > 0:
        TAIL_N: tl.constexpr = tail_rows(TAIL, BLOCK_N, DESCRIPTORS)
        row = FULL * BLOCK_N
        inside_N = tl.arange(0, TAIL_N) < TAIL
        offset_N = tl.where(inside_N, 0.0, float("-inf"))
        for index in range(num_long):
            slot, page = first_slot + index, tl.load(pages_ptr + index)
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, q_scale_M, k_ints, slot, at_scales(k_scales_ptr, slot, head, row, H * L, L),
                v_pages, page, at_scales(v_scales_ptr, page, head, row, scale_page_stride, scale_head_stride),
                row, head, inside_N, offset_N,
                L * H * K, H * K, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, TAIL_N, KIND, True, DESCRIPTORS,
            )  # fmt: skip
        largest_M, total_M, sum_MK = attend_rows(
            q_MK, q_scale_M, k_ints, own_slot, at_scales(k_scales_ptr, own_slot, head, row, H * L, L),
            v_own, segment, None, row, head, inside_N, offset_N,
            L * H * K, H * K, v_segment_stride, v_row_stride,
            largest_M, total_M, sum_MK, K, TAIL_N, KIND, True, DESCRIPTORS,
        )  # fmt: skip
    store(out_ptr, sum_MK / total_M[:, None], L, H, K)


def int8_attention_triton(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
    *,
    tiling: Tiling | None = None,
) -> Tensor:
    """``kernels.attention.triton.paged_attention_triton`` with products of queries and keys in 8 bits.

    The arguments are the same. The buffer of keys takes (W + 1) * L rows of one byte a channel for each segment.
    """
    num_tokens, _, width = q_GLHK.shape[1:]
    own, pool = (k_GLHK, v_GLHK), (k_pages_PLHK, v_pages_PLHK)
    page_type = q_GLHK.dtype if scales is None else FP8
    assert all(x.dtype == q_GLHK.dtype for x in own) and all(x.dtype == page_type for x in pool)
    assert all(x.stride()[2:] == (width, 1) for x in (q_GLHK, *own, *pool)), "heads must lie packed"
    assert k_pages_PLHK.shape[1] >= num_tokens and k_pages_PLHK.stride() == v_pages_PLHK.stride()
    ints_SLHK, int_scales_SHL = _smooth_keys(k_GLHK, k_pages_PLHK, table, scales)
    tiling = tiling or choose_tiling(q_GLHK, ints_SLHK, v_GLHK, v_pages_PLHK)
    sources = [ints_SLHK, v_GLHK, v_pages_PLHK]
    if tiling.descriptors:
        sources = [descriptor(x, num_tokens, tiling) for x in sources]
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype, device=q_GLHK.device)
    int8_attention_kernel[grid(q_GLHK, tiling)](
        q_GLHK,
        *sources,
        ints_SLHK,
        v_pages_PLHK,
        int_scales_SHL,
        None if scales is None else scales.values_PHL,
        out_GLHK,
        *columns(table),
        table.pages_GW.shape[1] + 1,
        *q_GLHK.stride()[:2],
        *v_GLHK.stride()[:2],
        *v_pages_PLHK.stride()[:2],
        *((0, 0) if scales is None else scales.strides),
        DESCRIPTORS=tiling.descriptors,
        **constants(q_GLHK, tiling, torch.int8),
    )
    return out_GLHK


def _smooth_keys(
    k_GLHK: Tensor, k_pages_PLHK: Tensor, table: PageTable, scales: PageScales | None
) -> tuple[Tensor, Tensor]:
    """The keys that each segment sees as integers [G * S, L, H, K], and their scales [G * S, H, L]."""
    num_segments, num_tokens, num_heads, width = k_GLHK.shape
    num_slots, device = table.pages_GW.shape[1] + 1, k_GLHK.device
    num_rows = num_segments * num_slots
    ints_SLHK = torch.empty((num_rows, num_tokens, num_heads, width), dtype=torch.int8, device=device)
    int_scales_SHL = torch.empty((num_rows, num_heads, num_tokens), dtype=torch.float32, device=device)
    smooth_keys_kernel[(num_tokens, num_slots, num_segments)](
        k_GLHK,
        k_pages_PLHK,
        None if scales is None else scales.keys_PHL,
        mean_keys(k_GLHK),
        ints_SLHK,
        int_scales_SHL,
        *columns(table),
        *k_GLHK.stride()[:2],
        *k_pages_PLHK.stride()[:2],
        *((0, 0) if scales is None else scales.strides),
        H=num_heads,
        K=width,
        BLOCK_H=triton.next_power_of_2(num_heads),
        BLOCK_K=triton.next_power_of_2(width),
        num_warps=4,
    )
    return ints_SLHK, int_scales_SHL
