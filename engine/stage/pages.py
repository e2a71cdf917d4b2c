"""The page pool of a worker and the pages each video holds in it (design, law 6).

A page is the keys and values of one block in all layers of one stage. Pages never move: eviction gives a page back and
nothing is copied. Knows nothing of noise levels or tickets.

Letters: N layers, P pages, L tokens of a page, H heads, K channels of a head.
"""

from collections.abc import Container, Iterable
from typing import NamedTuple

import torch

from engine.config import RolloutConfig
from engine.law.window import attended_blocks, evicted_blocks, first_beside_sinks, re_encoding, sink_shift
from engine.model.segments import PagedCache
from engine.model.turning import turn_page
from kernels.numbers import FP8

MAX_TURNED = 2
"""Turned copies of the sinks that a video holds: a forward has passes of two of its blocks at most."""


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


class Seen(NamedTuple):
    """A page that a pass attends to."""

    page: int
    block: int
    """Whose keys and values it holds."""


class JointPass(NamedTuple):
    """One block's part in encoding a window again."""

    block: int
    page: int
    """Where its keys and values go."""
    seen: tuple[Seen, ...]


class VideoPages:
    """The pages of one video in one stage, by block.

    A restored video skips blocks: the pages that an undisturbed one would hold of them are not there to attend to.
    """

    def __init__(self, pool: PagePool, rollout: RolloutConfig) -> None:
        self._pool, self._rollout = pool, rollout
        self._page_by_block: dict[int, int] = {}
        self._next_block = 0
        self._first_sink = 0
        self._turned: dict[int, dict[int, int]] = {}
        """Copies of the sinks' pages, by how far they are turned in time, oldest first, and by block."""

    def attended(self, block: int) -> tuple[Seen, ...]:
        """What the passes of ``block`` attend to, oldest first."""
        blocks = attended_blocks(self._rollout, block, self._first_sink)
        return self._seen(blocks, first_beside_sinks(self._rollout, block, self._first_sink))

    def claim(self, block: int) -> int:
        """The page that C(block) will write."""
        assert block >= self._next_block, f"block {block} comes after block {self._next_block - 1}"
        self._next_block = block + 1
        self._page_by_block[block] = self._pool.take()
        return self._page_by_block[block]

    def unclaim(self, block: int) -> None:
        """Give back the page of a C(block) that did not run."""
        self._next_block = block
        self._drop([block])

    def evict_after(self, block: int) -> None:
        """Give back the pages that left the window when C(block) was written."""
        self._drop(evicted_blocks(self._rollout, block, self._page_by_block, self._first_sink))

    def encode_again(self, block: int, known: Container[int]) -> list[JointPass]:
        """A new prompt holds from ``block`` on: the passes that encode its window again, all in one forward.

        Of the blocks that should be encoded again only the ``known`` ones can be.
        """
        again = re_encoding(self._rollout, block, self._first_sink)
        blocks = [one for one in again.blocks if one in known]
        self._first_sink = again.first_sink
        if not again.seen:
            self._drop_turned()
        self._drop([one for one in self._page_by_block if one not in again.seen and one not in blocks])
        for one in blocks:
            if one not in self._page_by_block:
                self._page_by_block[one] = self._pool.take()
        joint = [Seen(self._page_by_block[one], one) for one in blocks]
        sinks = self._seen(again.seen, again.blocks.start)
        return [
            JointPass(one.block, one.page, (*sinks, *(other for other in joint if other is not one))) for one in joint
        ]

    def release(self) -> None:
        """Give back everything."""
        self._drop_turned()
        self._drop(list(self._page_by_block))

    def _seen(self, blocks: Iterable[int], first_other: int) -> tuple[Seen, ...]:
        """Those of the blocks that have pages; sinks where they stand for passes whose oldest other block this is."""
        shift = sink_shift(self._rollout, first_other, self._first_sink)
        turned = self._turned_by(shift) if shift else {}
        return tuple(Seen(turned.get(b, self._page_by_block[b]), b) for b in blocks if b in self._page_by_block)

    def _turned_by(self, shift: int) -> dict[int, int]:
        """Pages of the sinks, turned in time by so many latent frames: made anew from the sinks' own ones."""
        if shift not in self._turned:
            sinks = range(self._first_sink, self._first_sink + self._rollout.sink_blocks)
            there = [block for block in sinks if block in self._page_by_block]
            old = self._turned.pop(next(iter(self._turned))) if len(self._turned) == MAX_TURNED else {}
            copies = {block: old[block] if block in old else self._pool.take() for block in there}
            for block, copy in copies.items():
                turn_page(self._pool.cache, self._page_by_block[block], copy, shift)
            self._turned[shift] = copies
        return self._turned[shift]

    def _drop(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self._pool.give_back(self._page_by_block.pop(block))

    def _drop_turned(self) -> None:
        for copies in self._turned.values():
            for page in copies.values():
                self._pool.give_back(page)
        self._turned.clear()
