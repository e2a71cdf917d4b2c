"""The page pool of a worker and the pages each video holds in it (design, law 6).

A page is the keys and values of one block in all layers of one stage. Pages never move: eviction gives a page back and
nothing is copied. Knows nothing of noise levels or tickets.

Letters: N layers, P pages, L tokens of a page, H heads, K channels of a head.
"""

import torch

from engine.config import RolloutConfig
from engine.law.schedule import attended_blocks, evicted_block
from engine.model.segments import PagedCache
from kernels.numbers import FP8


def page_bytes(num_layers: int, page_tokens: int, num_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one page: keys and values, all layers, and their scales if it is held in 8 bits."""
    head_bytes = head_dim * dtype.itemsize + (torch.float32.itemsize if dtype == FP8 else 0)
    return 2 * num_layers * page_tokens * num_heads * head_bytes


class PagePool:
    """A fixed number of pages, allocated once; taking and giving back never touches the device's allocator."""

    def __init__(
        self,
        *,
        num_pages: int,
        num_layers: int,
        page_tokens: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        poison: bool = False,
    ) -> None:
        """Allocate the pool; pages of e4m3 come with scales.

        With ``poison``, pages hold NaN whenever nobody owns them, so a stale read shows.
        """
        shape = (num_layers, num_pages, page_tokens, num_heads, head_dim)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.num_pages = num_pages
        self.cache = PagedCache(keys, values)
        if dtype == FP8:
            rows = (num_layers, num_pages, num_heads, page_tokens)
            self.cache = PagedCache(keys, values, *(torch.zeros(rows, device=device) for _ in range(2)))
        self._poison = poison
        self._free = list(reversed(range(num_pages)))
        for page in self._free:
            self._fill(page)

    @property
    def num_used(self) -> int:
        """Pages that somebody owns."""
        return self.num_pages - len(self._free)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page: keys and values, all layers; also of a pool without pages."""
        num_layers, _, page_tokens, num_heads, head_dim = self.cache.keys_NPLHK.shape
        return page_bytes(num_layers, page_tokens, num_heads, head_dim, self.cache.keys_NPLHK.dtype)

    def take(self) -> int:
        """Hand out a free page. Admission counts pages before a video opens, so one is always there."""
        assert self._free, "the pool is empty: admission let in more than it holds"
        return self._free.pop()

    def give_back(self, page: int) -> None:
        """Return a page; its content is void from now on."""
        assert page not in self._free, f"page {page} was given back twice"
        self._fill(page)
        self._free.append(page)

    def _fill(self, page: int) -> None:
        if self._poison:
            for pages in self.cache.tensors:
                pages[:, page] = torch.nan


class VideoPages:
    """The pages of one video in one stage, by block.

    A restored video skips blocks: the pages that an undisturbed one would hold of them are not there to attend to.
    """

    def __init__(self, pool: PagePool, rollout: RolloutConfig) -> None:
        self._pool, self._rollout = pool, rollout
        self._page_by_block: dict[int, int] = {}
        self._next_block = 0
        self._skipped_before = 0

    def attended(self, block: int) -> tuple[int, ...]:
        """Pages that the passes of ``block`` attend to, oldest first."""
        there = [b for b in attended_blocks(self._rollout, block) if not self._is_skipped(b)]
        return tuple(self._page_by_block[b] for b in there)

    def claim(self, block: int) -> int:
        """The page that C(block) will write."""
        assert block >= self._next_block, f"block {block} comes after block {self._next_block - 1}"
        if block > self._next_block:
            self._skipped_before = block
        self._next_block = block + 1
        self._page_by_block[block] = self._pool.take()
        return self._page_by_block[block]

    def unclaim(self, block: int) -> None:
        """Give back the page of a C(block) that did not run."""
        self._next_block = block
        self._pool.give_back(self._page_by_block.pop(block))

    def evict_after(self, block: int) -> None:
        """Give back the page that left the window when C(block) was written."""
        gone = evicted_block(self._rollout, block)
        if gone is not None and not self._is_skipped(gone):
            self._pool.give_back(self._page_by_block.pop(gone))

    def release(self) -> None:
        """Give back everything."""
        while self._page_by_block:
            self._pool.give_back(self._page_by_block.popitem()[1])

    def _is_skipped(self, block: int) -> bool:
        return block < self._skipped_before and block not in self._page_by_block
