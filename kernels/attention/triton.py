"""Dense attention over pages as a Triton kernel. The twin is ``kernels.attention.formula.paged_attention_reference``.

Knows nothing of blocks, videos or noise. One program computes one tile of queries of one head of one segment.

The order of the keys is chosen for what compilers make of it (``kernels`` spec section 3): first the full tiles of
the segment's own tokens, then those of the pages in one flat loop, so that loads run ahead across page borders, up to
and with the first page of which fewer than L tokens count; then what is left of that one and of those behind it, in
small tiles; at last the partly filled tile of each page before it and of the own tokens. Only the last two are masked.
A row that lists its shorter page last, as ``page_table`` does, loses no time by it; any order is right. An ``if`` in
the main loop would put a select on every logit. With the own tokens behind the pages, the assembler makes the matrix
products of compute capability 9.0 wait for each other; ``tests/kernels/test_compile.py`` watches that.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
W columns of a page table; inside kernels M queries and N keys of a tile, K padded to a power of two.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

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
from kernels.numbers import FP8


@triton.jit(do_not_specialize=["pages_ptr", "num_tokens_ptr", "num_pages_ptr", "table_stride"])
def paged_attention_kernel(
    q_ptr, k_own, v_own, k_pages, v_pages, k_pages_ptr, v_pages_ptr, k_scales_ptr, v_scales_ptr, out_ptr,
    pages_ptr, num_tokens_ptr, num_pages_ptr, table_stride,
    q_segment_stride, q_row_stride, k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
    page_stride, page_row_stride, scale_page_stride, scale_head_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    DESCRIPTORS: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries. The grid is (tiles, G, H): programs that run together share a head's pages.

    ``k_own`` .. ``v_pages`` are pointers, or descriptors of [pages, L, H * K]; of own tokens a page is a segment. The
    pages come as pointers as well, because a descriptor would read behind the tokens of a shorter page. L is a constant
    of the kernel: a tile's page then costs no division, and tails compute no more than they need. Pages of 8 bits come
    with a scale for each token and head, float32; other pages have None for them.
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    q_MK, largest_M, total_M, sum_MK = begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    FULL: tl.constexpr = L // BLOCK_N
    TAIL: tl.constexpr = L % BLOCK_N
    pages_ptr += segment * table_stride
    num_tokens_ptr += segment * table_stride
    num_pages = tl.load(num_pages_ptr + segment)
    num_long, short = long_and_short(num_tokens_ptr, num_pages, L)

    if FULL > 0:
        for tile in range(FULL):
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, None, k_own, segment, None, v_own, segment, None,
                tile * BLOCK_N, head, None, None,
                k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, q_MK.dtype, False, DESCRIPTORS,
            )  # fmt: skip
        for tile in range(num_long * FULL + short // BLOCK_N):
            page = tl.load(pages_ptr + tile // FULL)
            row = tile % FULL * BLOCK_N
            k_scales = at_scales(k_scales_ptr, page, head, row, scale_page_stride, scale_head_stride)
            v_scales = at_scales(v_scales_ptr, page, head, row, scale_page_stride, scale_head_stride)
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, None, k_pages, page, k_scales, v_pages, page, v_scales,
                row, head, None, None,
                page_stride, page_row_stride, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, q_MK.dtype, False, DESCRIPTORS,
            )  # fmt: skip
    for slot in range(num_long, num_pages):
        page, num_tokens = tl.load(pages_ptr + slot), tl.load(num_tokens_ptr + slot)
        first = tl.where(slot == num_long, num_tokens // BLOCK_N * BLOCK_N, 0)
        # Not hoisted where tiles are large: a thread has no registers left to keep over these loops what they share.
        for row in tl.range(first, num_tokens, REST_N, num_stages=1, disable_licm=BLOCK_N > REST_N):
            inside_N = tl.arange(0, REST_N) < num_tokens - row
            offset_N = tl.where(inside_N, 0.0, float("-inf"))
            k_scales = at_scales(k_scales_ptr, page, head, row, scale_page_stride, scale_head_stride)
            v_scales = at_scales(v_scales_ptr, page, head, row, scale_page_stride, scale_head_stride)
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, None, k_pages_ptr, page, k_scales, v_pages_ptr, page, v_scales,
                row, head, inside_N, offset_N,
                page_stride, page_row_stride, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, REST_N, q_MK.dtype, True, False,
            )  # fmt: skip
    if TAIL > 0:
        TAIL_N: tl.constexpr = tail_rows(TAIL, BLOCK_N, DESCRIPTORS)
        inside_N = tl.arange(0, TAIL_N) < TAIL
        offset_N = tl.where(inside_N, 0.0, float("-inf"))
        for slot in range(num_long):
            page = tl.load(pages_ptr + slot)
            k_scales = at_scales(k_scales_ptr, page, head, FULL * BLOCK_N, scale_page_stride, scale_head_stride)
            v_scales = at_scales(v_scales_ptr, page, head, FULL * BLOCK_N, scale_page_stride, scale_head_stride)
            largest_M, total_M, sum_MK = attend_rows(
                q_MK, None, k_pages, page, k_scales, v_pages, page, v_scales,
                FULL * BLOCK_N, head, inside_N, offset_N,
                page_stride, page_row_stride, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, TAIL_N, q_MK.dtype, True, DESCRIPTORS,
            )  # fmt: skip
        largest_M, total_M, sum_MK = attend_rows(
            q_MK, None, k_own, segment, None, v_own, segment, None,
            FULL * BLOCK_N, head, inside_N, offset_N,
            k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
            largest_M, total_M, sum_MK, K, TAIL_N, q_MK.dtype, True, DESCRIPTORS,
        )  # fmt: skip
    store(out_ptr, sum_MK / total_M[:, None], L, H, K)


def paged_attention_triton(
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
    """Let each segment's queries see every token that counts of its pages, and its own tokens, densely.

    Args:
        q_GLHK: queries; bfloat16, float16 or float32. Of all tensors the last two axes lie packed.
        k_GLHK: the segments' own keys.
        v_GLHK: the segments' own values.
        k_pages_PLHK: keys of the pool; rows of a page behind the tokens that count are not read.
        v_pages_PLHK: values of the pool, laid out as the keys are.
        table: each segment's pages, and how many tokens of each count; entries from ``num_pages_G`` on are not read.
        scales: of pages in 8 bits; None where pages have the type of the queries.
        tiling: how to cut the work; what suits the tensors and the device if omitted.

    Returns:
        [G, L, H, K], packed. Softmax scale is 1 / sqrt(K); there is no mask.
    """
    num_tokens, _, width = q_GLHK.shape[1:]
    own, pool = (k_GLHK, v_GLHK), (k_pages_PLHK, v_pages_PLHK)
    page_type = q_GLHK.dtype if scales is None else FP8
    assert all(x.dtype == q_GLHK.dtype for x in own) and all(x.dtype == page_type for x in pool)
    assert all(x.stride()[2:] == (width, 1) for x in (q_GLHK, *own, *pool)), "heads must lie packed"
    assert k_pages_PLHK.shape[1] >= num_tokens and k_pages_PLHK.stride() == v_pages_PLHK.stride()
    tiling = tiling or choose_tiling(q_GLHK, *own, *pool)
    sources = [descriptor(x, num_tokens, tiling) if tiling.descriptors else x for x in (*own, *pool)]
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype, device=q_GLHK.device)
    paged_attention_kernel[grid(q_GLHK, tiling)](
        q_GLHK,
        *sources,
        *pool,
        *((None, None) if scales is None else (scales.keys_PHL, scales.values_PHL)),
        out_GLHK,
        *columns(table),
        *q_GLHK.stride()[:2],
        *k_GLHK.stride()[:2],
        *v_GLHK.stride()[:2],
        *k_pages_PLHK.stride()[:2],
        *((0, 0) if scales is None else scales.strides),
        DESCRIPTORS=tiling.descriptors,
        **constants(q_GLHK, tiling),
    )
    return out_GLHK
