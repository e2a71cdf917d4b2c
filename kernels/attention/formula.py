"""Attention over paged keys and values, and over text rows: what callers use, and the twins written as the formula.

Knows nothing of blocks, videos or noise: a page is a row of a tensor, a segment is a row of queries.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
T rows of text, W columns of a page table.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention.table import PageTable
from kernels.dispatch import uses_triton
from kernels.fp8.formula import PageScales, load_page


def paged_attention(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
) -> Tensor:
    """Let each segment's queries see every token that counts of its pages, and its own tokens, densely.

    Args:
        q_GLHK: queries, rotary positions applied.
        k_GLHK: the segments' own keys, rotary positions applied.
        v_GLHK: the segments' own values.
        k_pages_PLHK: one layer's keys of the whole pool; a page may have room for more tokens than L.
        v_pages_PLHK: one layer's values of the whole pool.
        table: for each segment, the pages it reads besides its own tokens, and how many tokens of each.
        scales: of pages in 8 bits; None where pages have the type of the queries.

    Returns:
        [G, L, H, K]. Softmax scale is 1 / sqrt(K); there is no mask (spec section 1.3, item 5).
    """
    if not uses_triton(q_GLHK):
        return paged_attention_reference(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, table, scales)
    from kernels.attention.triton import paged_attention_triton  # noqa: PLC0415 - Triton loads only where it runs

    return paged_attention_triton(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, table, scales)


def text_attention(q_GLHK: Tensor, k_GTHK: Tensor, v_GTHK: Tensor, bias_GT: Tensor, num_rows_G: Tensor) -> Tensor:
    """Let each segment's queries see its text rows; ``bias_GT`` is added to the logits of each row.

    Args:
        q_GLHK: queries.
        k_GTHK: keys of the text rows.
        v_GTHK: values of the text rows.
        bias_GT: ln(n) for a row that stands for n identical ones (spec section 1.3, item 7).
        num_rows_G: int32, 1 .. T; a segment's rows from there on are not read.

    Returns:
        [G, L, H, K]. Softmax scale is 1 / sqrt(K).
    """
    if not uses_triton(q_GLHK):
        return text_attention_reference(q_GLHK, k_GTHK, v_GTHK, bias_GT, num_rows_G)
    from kernels.attention.triton_text import text_attention_triton  # noqa: PLC0415 - Triton loads only where it runs

    return text_attention_triton(q_GLHK, k_GTHK, v_GTHK, bias_GT, num_rows_G)


def paged_attention_reference(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    table: PageTable,
    scales: PageScales | None = None,
) -> Tensor:
    """The twin of the paged kernel, with the arguments of ``paged_attention``."""
    out_GLHK = torch.empty_like(q_GLHK)
    for segment, pages in enumerate(table.lists()):
        key_scales, value_scales = (None, None) if scales is None else (scales.keys_PHL, scales.values_PHL)
        keys_THK = visible_rows(k_GLHK[segment], k_pages_PLHK, pages, key_scales)
        values_THK = visible_rows(v_GLHK[segment], v_pages_PLHK, pages, value_scales)
        out_GLHK[segment] = attend(q_GLHK[segment], keys_THK, values_THK)
    return out_GLHK


def visible_rows(
    own_LHK: Tensor, pages_PLHK: Tensor, pages: Sequence[tuple[int, int]], scales_PHL: Tensor | None
) -> Tensor:
    """Keys or values that a segment sees, in the type of its own: those of its pages, then its own [T, H, K].

    ``pages`` are the numbers of the pages, each with the number of its tokens that count.
    """
    if scales_PHL is None:
        rows = [pages_PLHK[page, :count] for page, count in pages]
    else:
        rows = [
            load_page(pages_PLHK[page, :count], scales_PHL[page, :, :count], own_LHK.dtype) for page, count in pages
        ]
    return torch.cat([*rows, own_LHK])


def text_attention_reference(
    q_GLHK: Tensor, k_GTHK: Tensor, v_GTHK: Tensor, bias_GT: Tensor, num_rows_G: Tensor
) -> Tensor:
    """The twin of the text kernel, with the arguments of ``text_attention``."""
    out_GLHK = torch.empty_like(q_GLHK)
    for segment, count in enumerate(num_rows_G.tolist()):
        bias = bias_GT[segment, :count].to(q_GLHK.dtype)[None, None, None, :]
        out_GLHK[segment] = attend(q_GLHK[segment], k_GTHK[segment, :count], v_GTHK[segment, :count], bias)
    return out_GLHK


def attend(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias: Tensor | None = None) -> Tensor:
    """Dense attention of one segment by the formula; ``bias`` is added to the logits. Returns [L, H, K]."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_LHK, k_THK, v_THK))
    out_HLK: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=bias)[0]
    return out_HLK.transpose(0, 1)


def mean_keys(k_GLHK: Tensor) -> Tensor:
    """What is subtracted from every key that a segment sees: the mean of its own, float32 [G, H, K]."""
    return k_GLHK.mean(1, dtype=torch.float32)
