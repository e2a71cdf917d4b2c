"""Which pages each segment reads and writes, and how many tokens of a page count: a record of tensors, and its making.

Letters: G segments, L tokens of a segment (and of a page at most), W columns of a page table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
