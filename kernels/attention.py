"""Attention over paged keys and values, and over text rows: what callers use, and the twins written as the formula.

Knows nothing of blocks, sessions or noise: a page is a row of a tensor, a segment is a row of queries.

Letters: G segments, L tokens of a segment (and of a page), H heads, K channels of a head, P pages of the pool,
T rows of text, W columns of a page table.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.dispatch import uses_triton


def paged_attention(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    page_lists: tuple[tuple[int, ...], ...],
) -> Tensor:
    """Let each segment's queries see every token of its pages and its own tokens, densely.

    Args:
        q_GLHK: queries, rotary positions applied.
        k_GLHK: the segments' own keys, rotary positions applied.
        v_GLHK: the segments' own values.
        k_pages_PLHK: one layer's keys of the whole pool; a page may hold more tokens than L, the first L count.
        v_pages_PLHK: one layer's values of the whole pool.
        page_lists: for each segment, the pages it attends to besides itself.

    Returns:
        [G, L, H, K]. Softmax scale is 1 / sqrt(K); there is no mask (spec section 1.3, item 5).
    """
    if not uses_triton(q_GLHK):
        return paged_attention_reference(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, page_lists)
    from kernels.triton_attention import paged_attention_triton  # noqa: PLC0415 - Triton loads only where it runs

    pages_GW, num_pages_G = page_table(page_lists, q_GLHK.device)
    return paged_attention_triton(q_GLHK, k_GLHK, v_GLHK, k_pages_PLHK, v_pages_PLHK, pages_GW, num_pages_G)


def text_attention(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias_T: Tensor) -> Tensor:
    """Attend from L tokens to T text rows; ``bias_T`` is added to the logits of each row.

    A row with bias ln(n) stands for n identical rows (spec section 1.3, item 7). Returns [L, H, K].
    """
    if not uses_triton(q_LHK):
        return text_attention_reference(q_LHK, k_THK, v_THK, bias_T)
    from kernels.triton_attention import text_attention_triton  # noqa: PLC0415 - Triton loads only where it runs

    num_rows_G = torch.full((1,), len(k_THK), dtype=torch.int32, device=q_LHK.device)
    return text_attention_triton(q_LHK[None], k_THK[None], v_THK[None], bias_T[None], num_rows_G)[0]


def page_table(page_lists: tuple[tuple[int, ...], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Lay page lists out for a kernel: int32 table [G, W], short rows filled with page 0, and counts [G].

    Both are views of one tensor, so that one copy takes them to the device. W is at least 1.
    """
    width = max(map(len, page_lists), default=0)
    rows = [[len(pages), *pages, *[0] * max(1 - len(pages), width - len(pages))] for pages in page_lists]
    packed = torch.tensor(rows, dtype=torch.int32).to(device, non_blocking=True)
    return packed[:, 1:], packed[:, 0].contiguous()


def paged_attention_reference(
    q_GLHK: Tensor,
    k_GLHK: Tensor,
    v_GLHK: Tensor,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    page_lists: tuple[tuple[int, ...], ...],
) -> Tensor:
    """The twin of the paged kernel, with the arguments of ``paged_attention``."""
    num_tokens = q_GLHK.shape[1]
    out_GLHK = torch.empty_like(q_GLHK)
    for segment, pages in enumerate(page_lists):
        keys = [*(k_pages_PLHK[page, :num_tokens] for page in pages), k_GLHK[segment]]
        values = [*(v_pages_PLHK[page, :num_tokens] for page in pages), v_GLHK[segment]]
        out_GLHK[segment] = _attend(q_GLHK[segment], torch.cat(keys), torch.cat(values), None)
    return out_GLHK


def text_attention_reference(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias_T: Tensor) -> Tensor:
    """The twin of the text kernel, with the arguments of ``text_attention``."""
    return _attend(q_LHK, k_THK, v_THK, bias_T.to(q_LHK.dtype)[None, None, None, :])


def _attend(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_LHK, k_THK, v_THK))
    out_HLK: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=bias)[0]
    return out_HLK.transpose(0, 1)
