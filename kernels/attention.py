"""Attention over paged keys and values, written as the formula: the twin that every faster kernel is compared with.

Knows nothing of blocks, sessions or noise: a page is a row of a tensor, a segment is a row of queries.

Letters: G segments, L tokens of a segment (and of a page), H heads, K channels of a head, P pages of the pool,
T rows of text.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


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
    num_tokens = q_GLHK.shape[1]
    out_GLHK = torch.empty_like(q_GLHK)
    for segment, pages in enumerate(page_lists):
        keys = [*(k_pages_PLHK[page, :num_tokens] for page in pages), k_GLHK[segment]]
        values = [*(v_pages_PLHK[page, :num_tokens] for page in pages), v_GLHK[segment]]
        out_GLHK[segment] = _attend(q_GLHK[segment], torch.cat(keys), torch.cat(values), None)
    return out_GLHK


def text_attention(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias_T: Tensor) -> Tensor:
    """Attend from L tokens to T text rows; ``bias_T`` is added to the logits of each row.

    A row with bias ln(n) stands for n identical rows (spec section 1.3, item 7). Returns [L, H, K].
    """
    return _attend(q_LHK, k_THK, v_THK, bias_T.to(q_LHK.dtype)[None, None, None, :])


def _attend(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor, bias: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_LHK, k_THK, v_THK))
    out_HLK: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=bias)[0]
    return out_HLK.transpose(0, 1)
