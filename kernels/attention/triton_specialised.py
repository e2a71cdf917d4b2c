"""Dense attention over pages with specialised warps: one warp loads tiles, two groups of four take turns at computing.

While one group takes exponents the other one's matrix products run, as in FlashAttention-3 (Shah et al., arXiv
2407.08608, section 3.1). Triton splits the warps itself, where compute capability is 9.0 and the loop has one form
(``kernels`` spec section 3.1): one flat loop, no ``if``, four warps, operands through descriptors that are made on
the device. It drops the split silently otherwise; ``tests/kernels/test_compile.py`` watches that. Hence every tile is
masked, and a segment's own tokens, which are no page of the pool, take a second kernel that goes on from the softmax of
the first. Tiles behind the tokens that count of a page are masked as a whole; only the last page of a row, where
``page_table`` puts a shorter one, has none.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
W columns of a page table; inside kernels M queries and N keys of a tile.
"""

import math
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.table import PageTable
from kernels.attention.triton_softmax import (
    HOPPER_TILING,
    Tiling,
    attend_rows,
    begin,
    columns,
    constants,
    descriptor,
    grid,
    store,
    suits_descriptors,
)
from kernels.dispatch import is_interpreted

PAGES_TILING = Tiling(queries=128, keys=128, num_warps=4, num_stages=2, descriptors=True)
"""Four warps, of which Triton makes two groups and a loader; a third stage would not fit into shared memory."""
CAPABILITY = (9, 0)
"""The only compute capability for which Triton splits the warps of this loop."""
SCRATCH_BYTES = 16 * 2**20
"""Descriptors take 128 bytes each, and a program three of them: enough for 40 000 programs."""

_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit(
    do_not_specialize=["pages_ptr", "num_tokens_ptr", "num_pages_ptr", "table_stride", "num_rows", "pool_pages"]
)
def pages_kernel(
    q_ptr, k_pages_ptr, v_pages_ptr, mean_ptr, log_total_ptr,
    pages_ptr, num_tokens_ptr, num_pages_ptr, table_stride, num_rows, pool_pages,
    q_row_stride, page_stride, page_row_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries to all pages of its segment. The grid is (tiles, G, H).

    Writes the weighted mean of the values [G, L, H, K] and, in base 2, the logarithm of the weights' total [G, L, H],
    both float32; zeros and -inf for a segment without pages. A tile's rows behind its segment are computed, not stored.
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    first_row = tl.program_id(0) * BLOCK_M
    SCALE: tl.constexpr = _LOG2_E / K**0.5
    TILES: tl.constexpr = (L + BLOCK_N - 1) // BLOCK_N
    queries = tl.make_tensor_descriptor(q_ptr, [num_rows, H * K], [q_row_stride, 1], [BLOCK_M, K])
    keys = tl.make_tensor_descriptor(
        k_pages_ptr, [pool_pages, L, H * K], [page_stride, page_row_stride, 1], [1, BLOCK_N, K]
    )
    values = tl.make_tensor_descriptor(
        v_pages_ptr, [pool_pages, L, H * K], [page_stride, page_row_stride, 1], [1, BLOCK_N, K]
    )
    pages_ptr += segment * table_stride
    num_tokens_ptr += segment * table_stride

    q_MK = queries.load([segment * L + first_row, head * K])
    if AS_FLOAT32:
        q_MK = q_MK.to(tl.float32)
    largest_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total_M, sum_MK = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M, K], tl.float32)
    num_pages = tl.load(num_pages_ptr + segment)
    last_tokens = tl.load(num_tokens_ptr + num_pages - 1, mask=num_pages > 0, other=0)
    num_tiles = tl.maximum(num_pages - 1, 0) * TILES + tl.cdiv(last_tokens, BLOCK_N)
    for tile in tl.range(0, num_tiles, warp_specialize=True):
        page, num_tokens = tl.load(pages_ptr + tile // TILES), tl.load(num_tokens_ptr + tile // TILES)
        # A tile that would reach behind the tokens that count begins earlier, and what others took is masked. A row
        # before the page, where there are fewer tokens than rows, reads as zeros: a descriptor ends on both sides.
        first = tile % TILES * BLOCK_N
        row = tl.minimum(first, num_tokens - BLOCK_N)
        k_NK = keys.load([page, row, head * K]).reshape(BLOCK_N, K).to(q_MK.dtype)
        v_NK = values.load([page, row, head * K]).reshape(BLOCK_N, K).to(q_MK.dtype)
        logits_MN = tl.dot(q_MK, tl.trans(k_NK))
        logits_MN = tl.where((tl.arange(0, BLOCK_N) >= first - row)[None, :], logits_MN, float("-inf"))
        new_largest_M = tl.maximum(largest_M, tl.max(logits_MN, 1) * SCALE)
        weights_MN = tl.math.exp2(logits_MN * SCALE - new_largest_M[:, None])
        shrink_M = tl.math.exp2(largest_M - new_largest_M)
        total_M = total_M * shrink_M + tl.sum(weights_MN, 1)
        sum_MK = tl.dot(weights_MN.to(q_MK.dtype), v_NK, sum_MK * shrink_M[:, None])
        largest_M = new_largest_M

    row_M = first_row + tl.arange(0, BLOCK_M)
    place_M = (segment.to(tl.int64) * L + row_M) * H + head
    inside_M = row_M < L
    tl.store(log_total_ptr + place_M, largest_M + tl.math.log2(total_M), mask=inside_M)
    mean_MK = sum_MK / tl.where(total_M > 0, total_M, 1.0)[:, None]
    tl.store(mean_ptr + place_M[:, None] * K + tl.arange(0, K)[None, :], mean_MK, mask=inside_M[:, None])


@triton.jit
def own_tokens_kernel(
    q_ptr, k_own, v_own, mean_ptr, log_total_ptr, out_ptr,
    q_segment_stride, q_row_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Take a segment's own tokens into what ``pages_kernel`` wrote. The grid is (tiles, G, H).

    ``k_own`` and ``v_own`` are descriptors of [G, L, H * K].
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    q_MK, largest_M, total_M, sum_MK = begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    # A softmax whose largest logit is the logarithm of the total has a total of 1, and the mean for its sum.
    row_M = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    place_M = (segment.to(tl.int64) * L + row_M) * H + head
    largest_M = tl.load(log_total_ptr + place_M, mask=row_M < L, other=0.0)
    addresses_MK = mean_ptr + place_M[:, None] * K + tl.arange(0, BLOCK_K)[None, :]
    sum_MK += tl.load(addresses_MK, mask=(row_M < L)[:, None], other=0.0)
    total_M += 1.0
    FULL: tl.constexpr = L // BLOCK_N
    TAIL: tl.constexpr = L % BLOCK_N
    for tile in range(FULL):
        largest_M, total_M, sum_MK = attend_rows(
            q_MK, None, k_own, segment, None, v_own, segment, None,
            tile * BLOCK_N, head, None, None, None, None, None, None,
            largest_M, total_M, sum_MK, K, BLOCK_N, q_MK.dtype, False, True,
        )  # fmt: skip
    if TAIL > 0:
        inside_N = tl.arange(0, BLOCK_N) < TAIL
        offset_N = tl.where(inside_N, 0.0, float("-inf"))
        largest_M, total_M, sum_MK = attend_rows(
            q_MK, None, k_own, segment, None, v_own, segment, None,
            FULL * BLOCK_N, head, inside_N, offset_N, None, None, None, None,
            largest_M, total_M, sum_MK, K, BLOCK_N, q_MK.dtype, True, True,
        )  # fmt: skip
    store(out_ptr, sum_MK / total_M[:, None], L, H, K)


def paged_attention_specialised(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    *,
    pages_tiling: Tiling = PAGES_TILING,
    own_tiling: Tiling = HOPPER_TILING,
) -> Tensor:
    """Let each segment's queries see every token that counts of its pages, and its own tokens, densely.

    Args:
        q_GLHK: queries; bfloat16 or float16, packed. K is a power of two, at least 16.
        k_GLHK: the segments' own keys; the last two axes lie packed, rows start at multiples of 16 bytes.
        v_GLHK: the segments' own values, as the keys.
        k_pages_PLHK: keys of the pool; rows of a page behind the tokens that count are not read.
        v_pages_PLHK: values of the pool, laid out as the keys are.
        table: each segment's pages, and how many tokens of each count; entries from ``num_pages_G`` on are not read.
        pages_tiling: of the kernel over pages.
        own_tiling: of the kernel over own tokens.

    Returns:
        [G, L, H, K], packed. Softmax scale is 1 / sqrt(K); there is no mask.

    Calls on one device must not overlap: they share the memory of their descriptors.

    Raises:
        ValueError: widths or addresses are not what descriptors take.
    """
    num_segments, num_tokens, _, width = q_GLHK.shape
    if not all(map(suits_descriptors, (q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK))):
        raise ValueError(f"heads of width {width}, or where they lie, do not suit tensor descriptors")
    assert q_GLHK.is_contiguous()
    assert all(x.stride()[2:] == (width, 1) for x in (k_GLHK, v_GLHK, k_pages_PLHK)), "heads must lie packed"
    assert k_pages_PLHK.shape[1] >= num_tokens and k_pages_PLHK.stride() == v_pages_PLHK.stride()
    mean_GLHK = torch.empty(q_GLHK.shape, dtype=torch.float32, device=q_GLHK.device)
    log_total_GLH = torch.empty(q_GLHK.shape[:3], dtype=torch.float32, device=q_GLHK.device)
    out_GLHK = torch.empty_like(q_GLHK)
    if not is_interpreted():
        _lend_scratch(q_GLHK.device)
    pages_kernel[grid(q_GLHK, pages_tiling)](
        q_GLHK,
        k_pages_PLHK,
        v_pages_PLHK,
        mean_GLHK,
        log_total_GLH,
        *columns(table),
        num_segments * num_tokens,
        len(k_pages_PLHK),
        q_GLHK.stride(1),
        *k_pages_PLHK.stride()[:2],
        **constants(q_GLHK, pages_tiling),
    )
    own_tokens_kernel[grid(q_GLHK, own_tiling)](
        q_GLHK,
        *(descriptor(x, num_tokens, own_tiling) for x in (k_GLHK, v_GLHK)),
        mean_GLHK,
        log_total_GLH,
        out_GLHK,
        *q_GLHK.stride()[:2],
        **constants(q_GLHK, own_tiling),
    )
    return out_GLHK


class _Scratch:
    """Memory for descriptors at one address for good: a CUDA graph repeats a kernel with the address it once had."""

    def __init__(self, device: torch.device) -> None:
        self._bytes = torch.empty(SCRATCH_BYTES, dtype=torch.uint8, device=device)

    def __call__(self, size: int, alignment: int, stream: int | None) -> Tensor:
        assert size <= SCRATCH_BYTES and self._bytes.data_ptr() % alignment == 0
        return self._bytes


def _lend_scratch(device: torch.device) -> None:
    """Let Triton take it from this device's memory, in this thread: Triton keeps an allocator for each context."""
    triton.set_allocator(_scratch_on(device))


@cache
def _scratch_on(device: torch.device) -> _Scratch:
    return _Scratch(device)
