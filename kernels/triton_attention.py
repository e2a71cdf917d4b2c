"""Dense attention over pages and over text rows as Triton kernels. The twins are in ``kernels.attention``.

Knows nothing of blocks, sessions or noise. One program computes one tile of queries of one head of one segment with
an online softmax in float32 and base 2 (Dao et al., FlashAttention-2, arXiv 2307.08691, algorithm 1).

The order of the paged kernel's keys is chosen for what compilers make of it (spec ``kernels.md``, section 3): first
the full tiles of the segment's own tokens, then those of all pages in one flat loop, so that loads run ahead across
page borders; at last the partly filled tile of each page and of the own tokens, the only ones that are masked. An
``if`` in the main loop would put a select on every logit. With the own tokens behind the pages, the assembler makes
the matrix products of compute capability 9.0 wait for each other; ``tests/kernels/test_compile.py`` watches that.

Letters: G segments, L tokens of a segment (and of a page), H heads, K channels of a head, P pages of the pool,
T rows of text, W columns of a page table; inside kernels M queries and N keys of a tile, K padded to a power of two.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.dispatch import is_interpreted


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
FLOAT32_TILING = Tiling(queries=32, keys=32, num_warps=8, num_stages=2)
"""Exact products, without tensor cores: for comparisons, not for speed."""

_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _load_rows(
    source, page, row, head, num_valid, page_stride, row_stride,
    K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """One head of ``BLOCK_N`` rows of a page, [N, K]. If masked, rows from ``num_valid`` on are zeros and are not read.

    With a descriptor the hardware does that always: the descriptor ends where a page's tokens do.
    """
    if DESCRIPTORS:
        rows_NK = source.load([page, row, head * K]).reshape(BLOCK_N, BLOCK_K)
    else:
        n, k = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
        start = source + page.to(tl.int64) * page_stride + row * row_stride + head * K
        addresses_NK = start + n[:, None] * row_stride + k[None, :]
        if MASKED:
            rows_NK = tl.load(addresses_NK, mask=(n < num_valid)[:, None] & (k < K)[None, :], other=0.0)
        elif K != BLOCK_K:
            rows_NK = tl.load(addresses_NK, mask=(k < K)[None, :], other=0.0)
        else:
            rows_NK = tl.load(addresses_NK)
    return rows_NK


@triton.jit
def _attend_rows(
    q_MK, keys, values, page, row, head, num_valid, offset_N,
    k_page_stride, k_row_stride, v_page_stride, v_row_stride,
    largest_M, total_M, sum_MK,
    K: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Take one tile of keys into the running softmax. Returns its new largest logit, total and weighted sum.

    If masked, ``offset_N`` is added to the products of queries and keys, before the scale: -inf takes a key out.
    """
    BLOCK_K: tl.constexpr = q_MK.shape[1]
    SCALE: tl.constexpr = _LOG2_E / K**0.5
    k_NK = _load_rows(
        keys, page, row, head, num_valid, k_page_stride, k_row_stride, K, BLOCK_K, BLOCK_N, MASKED, DESCRIPTORS
    ).to(q_MK.dtype)
    logits_MN = tl.dot(q_MK, tl.trans(k_NK), input_precision="ieee")
    if MASKED:
        logits_MN += offset_N[None, :]
    # The scale is applied within the exponent, where it makes one multiply-add with the subtraction.
    new_largest_M = tl.maximum(largest_M, tl.max(logits_MN, 1) * SCALE)
    weights_MN = tl.math.exp2(logits_MN * SCALE - new_largest_M[:, None])
    shrink_M = tl.math.exp2(largest_M - new_largest_M)
    total_M = total_M * shrink_M + tl.sum(weights_MN, 1)
    sum_MK = sum_MK * shrink_M[:, None]
    v_NK = _load_rows(
        values, page, row, head, num_valid, v_page_stride, v_row_stride, K, BLOCK_K, BLOCK_N, MASKED, DESCRIPTORS
    ).to(q_MK.dtype)
    sum_MK = tl.dot(weights_MN.to(q_MK.dtype), v_NK, sum_MK, input_precision="ieee")
    return new_largest_M, total_M, sum_MK


@triton.jit
def _begin(
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
def _store(out_ptr, out_MK, L: tl.constexpr, H: tl.constexpr, K: tl.constexpr):
    """Write the program's rows into packed [G, L, H, K]."""
    BLOCK_M: tl.constexpr = out_MK.shape[0]
    BLOCK_K: tl.constexpr = out_MK.shape[1]
    row_M, channel_K = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    start = out_ptr + tl.program_id(1).to(tl.int64) * (L * H * K) + tl.program_id(2) * K
    inside_MK = (row_M < L)[:, None] & (channel_K < K)[None, :]
    rounded_MK = out_MK.to(out_ptr.dtype.element_ty)
    tl.store(start + row_M[:, None] * (H * K) + channel_K[None, :], rounded_MK, mask=inside_MK)


@triton.jit(do_not_specialize=["pages_ptr", "num_pages_ptr", "table_stride"])
def paged_attention_kernel(
    q_ptr, k_own, v_own, k_pages, v_pages, out_ptr,
    pages_ptr, num_pages_ptr, table_stride,
    q_segment_stride, q_row_stride, k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
    page_stride, page_row_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    DESCRIPTORS: tl.constexpr, AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries. The grid is (tiles, G, H): programs that run together share a head's pages.

    ``k_own`` .. ``v_pages`` are pointers, or descriptors of [pages, L, H * K]; of own tokens a page is a segment. L is
    a constant of the kernel: a tile's page then costs no division, and tails compute no more than they need.
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    q_MK, largest_M, total_M, sum_MK = _begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    FULL: tl.constexpr = L // BLOCK_N
    TAIL: tl.constexpr = L % BLOCK_N
    pages_ptr += segment * table_stride
    num_pages = tl.load(num_pages_ptr + segment)

    if FULL > 0:
        for tile in range(FULL):
            largest_M, total_M, sum_MK = _attend_rows(
                q_MK, k_own, v_own, segment, tile * BLOCK_N, head, None, None,
                k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, False, DESCRIPTORS,
            )  # fmt: skip
        for tile in range(num_pages * FULL):
            page = tl.load(pages_ptr + tile // FULL)
            largest_M, total_M, sum_MK = _attend_rows(
                q_MK, k_pages, v_pages, page, tile % FULL * BLOCK_N, head, None, None,
                page_stride, page_row_stride, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, False, DESCRIPTORS,
            )  # fmt: skip
    if TAIL > 0:
        offset_N = tl.where(tl.arange(0, BLOCK_N) < TAIL, 0.0, float("-inf"))
        for slot in range(num_pages):
            page = tl.load(pages_ptr + slot)
            largest_M, total_M, sum_MK = _attend_rows(
                q_MK, k_pages, v_pages, page, FULL * BLOCK_N, head, TAIL, offset_N,
                page_stride, page_row_stride, page_stride, page_row_stride,
                largest_M, total_M, sum_MK, K, BLOCK_N, True, DESCRIPTORS,
            )  # fmt: skip
        largest_M, total_M, sum_MK = _attend_rows(
            q_MK, k_own, v_own, segment, FULL * BLOCK_N, head, TAIL, offset_N,
            k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
            largest_M, total_M, sum_MK, K, BLOCK_N, True, DESCRIPTORS,
        )  # fmt: skip
    _store(out_ptr, sum_MK / total_M[:, None], L, H, K)


@triton.jit(do_not_specialize=["num_rows_ptr", "bias_ptr", "bias_stride"])
def text_attention_kernel(
    q_ptr, k_ptr, v_ptr, bias_ptr, out_ptr,
    num_rows_ptr, bias_stride,
    q_segment_stride, q_row_stride, k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
    L: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries to text rows. The grid is (tiles, G, H).

    Every tile is masked: rows are few, their number differs by segment and each has a bias anyway.
    """
    segment, head = tl.program_id(1), tl.program_id(2)
    q_MK, largest_M, total_M, sum_MK = _begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    num_rows = tl.load(num_rows_ptr + segment)
    bias_ptr += segment * bias_stride
    for row in range(0, num_rows, BLOCK_N):
        row_N = row + tl.arange(0, BLOCK_N)
        bias_N = tl.load(bias_ptr + row_N, mask=row_N < num_rows, other=float("-inf")).to(tl.float32)
        largest_M, total_M, sum_MK = _attend_rows(
            q_MK, k_ptr, v_ptr, segment, row, head, num_rows - row, bias_N * K**0.5,
            k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
            largest_M, total_M, sum_MK, K, BLOCK_N, True, False,
        )  # fmt: skip
    _store(out_ptr, sum_MK / total_M[:, None], L, H, K)


def paged_attention_triton(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    pages_GW: Tensor,
    num_pages_G: Tensor,
    *,
    tiling: Tiling | None = None,
) -> Tensor:
    """Let each segment's queries see every token of its pages and its own tokens, densely.

    Args:
        q_GLHK: queries; bfloat16, float16 or float32. Of all tensors the last two axes lie packed.
        k_GLHK: the segments' own keys.
        v_GLHK: the segments' own values.
        k_pages_PLHK: keys of the pool; a page may hold more tokens than L, the first L count, the others are not read.
        v_pages_PLHK: values of the pool, laid out as the keys are.
        pages_GW: int32, each segment's pages; entries from ``num_pages_G`` on are not read.
        num_pages_G: int32, 0 .. W.
        tiling: how to cut the work; what suits the tensors and the device if omitted.

    Returns:
        [G, L, H, K], packed. Softmax scale is 1 / sqrt(K); there is no mask.
    """
    num_tokens, _, width = q_GLHK.shape[1:]
    tensors = (q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK)
    assert all(x.dtype == q_GLHK.dtype and x.stride()[2:] == (width, 1) for x in tensors), "heads must lie packed"
    assert k_pages_PLHK.shape[1] >= num_tokens and k_pages_PLHK.stride() == v_pages_PLHK.stride()
    assert pages_GW.dtype == num_pages_G.dtype == torch.int32
    assert pages_GW.stride(1) == 1 and num_pages_G.is_contiguous()
    tiling = tiling or _choose_tiling(*tensors)
    sources = [_descriptor(x, num_tokens, tiling) if tiling.descriptors else x for x in tensors[1:]]
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype, device=q_GLHK.device)
    paged_attention_kernel[_grid(q_GLHK, tiling)](
        q_GLHK,
        *sources,
        out_GLHK,
        pages_GW,
        num_pages_G,
        pages_GW.stride(0),
        *q_GLHK.stride()[:2],
        *k_GLHK.stride()[:2],
        *v_GLHK.stride()[:2],
        *k_pages_PLHK.stride()[:2],
        DESCRIPTORS=tiling.descriptors,
        **_constants(q_GLHK, tiling),
    )
    return out_GLHK


def text_attention_triton(
    q_GLHK: Tensor, k_GTHK: Tensor, v_GTHK: Tensor, bias_GT: Tensor, num_rows_G: Tensor, *, tiling: Tiling | None = None
) -> Tensor:
    """Let each segment's queries see its text rows; a row's bias is added to its logits.

    Args:
        q_GLHK: queries; bfloat16, float16 or float32. Of all tensors with heads the last two axes lie packed.
        k_GTHK: keys of the text rows.
        v_GTHK: values of the text rows.
        bias_GT: any float type; ln(n) for a row that stands for n equal ones.
        num_rows_G: int32, 1 .. T; rows from there on are not read.
        tiling: how to cut the work, without descriptors; what suits the type if omitted.

    Returns:
        [G, L, H, K], packed. Softmax scale is 1 / sqrt(K).
    """
    width = q_GLHK.shape[-1]
    tensors = (q_GLHK, k_GTHK, v_GTHK)
    assert all(x.dtype == q_GLHK.dtype and x.stride()[2:] == (width, 1) for x in tensors), "heads must lie packed"
    assert num_rows_G.dtype == torch.int32 and num_rows_G.is_contiguous() and bias_GT.stride(1) == 1
    tiling = tiling or (FLOAT32_TILING if q_GLHK.dtype == torch.float32 else HALF_TILING)
    assert not tiling.descriptors
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype, device=q_GLHK.device)
    text_attention_kernel[_grid(q_GLHK, tiling)](
        *tensors,
        bias_GT,
        out_GLHK,
        num_rows_G,
        bias_GT.stride(0),
        *q_GLHK.stride()[:2],
        *k_GTHK.stride()[:2],
        *v_GTHK.stride()[:2],
        **_constants(q_GLHK, tiling),
    )
    return out_GLHK


def _choose_tiling(q: Tensor, *sources: Tensor) -> Tiling:
    if q.dtype == torch.float32:
        return FLOAT32_TILING
    has_tma = q.is_cuda and torch.cuda.get_device_capability(q.device)[0] in (9, 10)
    return HOPPER_TILING if has_tma and all(map(_suits_descriptors, sources)) else HALF_TILING


def _suits_descriptors(x: Tensor) -> bool:
    width = x.shape[-1]
    starts = (x.data_ptr(), *(stride * x.element_size() for stride in x.stride()[:2]))
    return width == _padded(width) and not any(start % 16 for start in starts)


def _descriptor(x_PLHK: Tensor, num_tokens: int, tiling: Tiling) -> TensorDescriptor:
    """Describe the first tokens of each page, heads joined; what lies outside reads as zeros."""
    num_pages, _, num_heads, width = x_PLHK.shape
    shape = [num_pages, num_tokens, num_heads * width]
    return TensorDescriptor(x_PLHK, shape, [*x_PLHK.stride()[:2], 1], [1, tiling.keys, width])


def _grid(q_GLHK: Tensor, tiling: Tiling) -> tuple[int, int, int]:
    return triton.cdiv(q_GLHK.shape[1], tiling.queries), q_GLHK.shape[0], q_GLHK.shape[2]


def _constants(q_GLHK: Tensor, tiling: Tiling) -> dict[str, int | bool]:
    """What both kernels are compiled for, and how."""
    num_tokens, num_heads, width = q_GLHK.shape[1:]
    return {
        "L": num_tokens,
        "H": num_heads,
        "K": width,
        "BLOCK_M": tiling.queries,
        "BLOCK_N": tiling.keys,
        "BLOCK_K": _padded(width),
        "AS_FLOAT32": is_interpreted(),
        "num_warps": tiling.num_warps,
        "num_stages": tiling.num_stages,
    }


def _padded(width: int) -> int:
    """Triton's tiles are powers of two, and its matrix products take at least 16."""
    return max(16, 1 << (width - 1).bit_length())
