"""Attention over paged keys and values, and over text rows: what callers use, and the twins written as the formula.

Knows nothing of blocks, videos or noise: a page is a row of a tensor, a segment is a row of queries.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
T rows of text, W columns of a page table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.dispatch import uses_triton
from kernels.fp8.formula import PageScales, load_page


@dataclass(frozen=True)
class PageTable:
    """Which pages each segment reads and writes, as tensors on the device of the pool."""

    pages_GW: Tensor
    """Int32: pages read besides the segment's own tokens; the first ``num_pages_G`` of a row count. Pages of which L
    tokens count come first in a row: kernels are right in any order, but take their fast loop up to a shorter page."""
    num_tokens_GW: Tensor
    """Int32, 1 .. L: the tokens of each listed page that count, its first ones; the others are not read."""
    num_pages_G: Tensor
    """Int32, 0 .. W."""
    write_pages_G: Tensor
    """Int32: the page a segment writes; -1 for none."""

    def lists(self) -> list[list[tuple[int, int]]]:
        """The pages each segment reads and how many tokens of each, on the host."""
        columns = (self.pages_GW.tolist(), self.num_tokens_GW.tolist(), self.num_pages_G.tolist())
        return [list(zip(pages, tokens, strict=True))[:count] for pages, tokens, count in zip(*columns, strict=True)]

    def behind(self, first: int) -> "PageTable":
        """The rows of the segments from ``first`` on."""
        live = slice(first, None)
        return PageTable(
            self.pages_GW[live], self.num_tokens_GW[live], self.num_pages_G[live], self.write_pages_G[live]
        )


def page_table(
    page_lists: Sequence[Sequence[int]],
    write_pages: Sequence[int],
    device: torch.device,
    *,
    page_tokens: int,
    token_lists: Sequence[Sequence[int]] = (),
    width: int = 1,
) -> PageTable:
    """Lay page lists out for a kernel; one copy takes all of it to the device.

    Args:
        page_lists: the pages that each segment reads, in any order.
        write_pages: the page that each of the first segments writes; the others write none.
        device: of the pool.
        page_tokens: tokens of a segment (L), and of each page unless ``token_lists`` says less.
        token_lists: how many tokens count of each page in ``page_lists``; empty where L do of all pages.
        width: the table has at least so many columns.

    Raises:
        ValueError: ``token_lists`` speaks of other pages than ``page_lists``, or a number in it is not in 1 .. L.
    """
    width = max(width, *map(len, page_lists))
    token_lists = token_lists or [[page_tokens] * len(pages) for pages in page_lists]
    if list(map(len, token_lists)) != list(map(len, page_lists)):
        raise ValueError(f"token_lists {token_lists} does not give a number for each page of page_lists {page_lists}")
    rows = []
    for segment, (pages, tokens) in enumerate(zip(page_lists, token_lists, strict=True)):
        if not all(1 <= count <= page_tokens for count in tokens):
            raise ValueError(f"token_lists of segment {segment} says {tokens}, a page has 1 to {page_tokens} tokens")
        write_page = write_pages[segment] if segment < len(write_pages) else -1
        padding = [0] * (width - len(pages))
        longest_first = sorted(zip(tokens, pages, strict=True), key=lambda one: -one[0])  # equal ones as they were
        rows.append([len(pages), write_page, *(page for _, page in longest_first), *padding])
        rows[-1] += [*(count for count, _ in longest_first), *padding]
    packed = torch.tensor(rows, dtype=torch.int32).to(device, non_blocking=True)
    pages_GW, num_tokens_GW = packed[:, 2 : 2 + width], packed[:, 2 + width :]
    return PageTable(pages_GW, num_tokens_GW, packed[:, 0].contiguous(), packed[:, 1].contiguous())


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
