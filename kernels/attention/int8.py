"""Paged attention whose queries and keys are multiplied as 8-bit integers, and the twin written as the formula.

What all keys of a query have in common adds the same to all its logits, and the softmax takes that out again. So the
mean of the segment's own keys is subtracted from every key it sees, its pages' too: channels with a large offset then
leave the digits to what differs (Zhang et al., SageAttention, arXiv 2410.02367, section 4.2, smooths with the mean of
all keys). Each token of each head has a scale of its own. Weights and values are multiplied in the type they have.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
T keys of a segment.
"""

import torch
from torch import Tensor

from kernels.attention.formula import attend, mean_keys, visible_rows
from kernels.attention.table import PageTable
from kernels.dispatch import uses_triton
from kernels.fp8.formula import PageScales
from kernels.numbers import FLOOR, INT8_MAX


def paged_attention_int8(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
) -> Tensor:
    """``kernels.attention.formula.paged_attention`` with products of queries and keys in 8 bits; the same arguments."""
    if not uses_triton(q_GLHK):
        return paged_attention_int8_reference(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, table, scales)
    from kernels.attention.triton_int8 import int8_attention_triton  # noqa: PLC0415 - Triton loads only where it runs

    return int8_attention_triton(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, table, scales)


def paged_attention_int8_reference(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
) -> Tensor:
    """The twin of the kernels, with the arguments of ``paged_attention_int8``."""
    mean_GHK, out_GLHK = mean_keys(k_GLHK), torch.empty_like(q_GLHK)
    for segment, pages in enumerate(table.lists()):
        key_scales, value_scales = (None, None) if scales is None else (scales.keys_PHL, scales.values_PHL)
        keys_THK = visible_rows(k_GLHK[segment].float(), k_pages_PLHK, pages, key_scales)
        values_THK = visible_rows(v_GLHK[segment].float(), v_pages_PLHK, pages, value_scales)
        keys_THK, queries_LHK = rounded(keys_THK - mean_GHK[segment]), rounded(q_GLHK[segment].float())
        out_GLHK[segment] = attend(queries_LHK, keys_THK, values_THK).to(q_GLHK.dtype)
    return out_GLHK


def rounded(x_LHK: Tensor) -> Tensor:
    """Float32 numbers as the integers of -127 .. 127 times a scale mean them; ties go up."""
    largest_LH1 = x_LHK.abs().amax(-1, keepdim=True).clamp_min(FLOOR)
    # A number over a tensor would be rounded twice, and kernels divide exactly.
    ints_LHK = torch.floor(x_LHK * (torch.full_like(largest_LH1, INT8_MAX) / largest_LH1) + 0.5)
    return ints_LHK * (largest_LH1 / INT8_MAX)
