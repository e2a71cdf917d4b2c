"""Dense attention over text rows as a Triton kernel. The twin is ``formula.text_attention_reference``.

Letters: G segments, L tokens of a segment, H heads, K channels of a head, T rows of text; inside kernels M queries and
N keys of a tile, K padded to a power of two.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.triton_softmax import (
    FLOAT32_TILING,
    HALF_TILING,
    Tiling,
    attend_rows,
    begin,
    constants,
    grid,
    store,
)


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
    q_MK, largest_M, total_M, sum_MK = begin(q_ptr, q_segment_stride, q_row_stride, L, K, BLOCK_M, BLOCK_K, AS_FLOAT32)
    num_rows = tl.load(num_rows_ptr + segment)
    bias_ptr += segment * bias_stride
    for row in range(0, num_rows, BLOCK_N):
        row_N = row + tl.arange(0, BLOCK_N)
        bias_N = tl.load(bias_ptr + row_N, mask=row_N < num_rows, other=float("-inf")).to(tl.float32)
        largest_M, total_M, sum_MK = attend_rows(
            q_MK, None, k_ptr, segment, None, v_ptr, segment, None,
            row, head, row_N < num_rows, bias_N * K**0.5,
            k_segment_stride, k_row_stride, v_segment_stride, v_row_stride,
            largest_M, total_M, sum_MK, K, BLOCK_N, q_MK.dtype, True, False,
        )  # fmt: skip
    store(out_ptr, sum_MK / total_M[:, None], L, H, K)


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
    text_attention_kernel[grid(q_GLHK, tiling)](
        *tensors,
        bias_GT,
        out_GLHK,
        num_rows_G,
        bias_GT.stride(0),
        *q_GLHK.stride()[:2],
        *k_GTHK.stride()[:2],
        *v_GTHK.stride()[:2],
        **constants(q_GLHK, tiling),
    )
    return out_GLHK
