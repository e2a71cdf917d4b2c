"""Forwards without the host in the way: inputs at fixed addresses, one CUDA graph a shape, tables as data.

A shape is the number of cache and of denoise passes and the size of a block. Everything else, which pages are read,
which block it is, whose prompt, is data in buffers that never move, so a forward is a few copies and one replay. All
shapes share one set of buffers. The fastest attention may take full windows only; a shape then has a second graph, for
windows that still grow. What is captured is ``CausalWan.compute``; ``Captures`` says how, so that the same buffers can
be tested without a GPU.

Shapes are captured when they are told to be, before a worker serves, over the pool of pages that it will serve from. A
forward of any other shape runs without a graph, from the same buffers and with the same numbers.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width, N layers, T text
rows, H heads, K channels of a head.
"""

import weakref
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from engine.config import TransformerConfig
from engine.model.capture import Captured, Captures
from engine.model.dit import CausalWan
from engine.model.segments import ForwardInputs, PagedCache, SegmentBatch, TextContext, TextRows
from kernels.attention.choice import UNTRIED, Choice
from kernels.attention.table import PageTable, page_table

Rows = TypeVar("Rows", TextRows, PageTable)


class TextBuffers:
    """The prompts of all segments, at fixed addresses; a row is copied only when its prompt is another one."""

    def __init__(self, config: TransformerConfig, num_segments: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (num_segments, config.num_layers, config.text_len, config.num_heads, config.head_dim)
        self.rows = TextRows(
            keys_GNTHK=torch.zeros(shape, dtype=dtype, device=device),
            values_GNTHK=torch.zeros(shape, dtype=dtype, device=device),
            bias_GT=torch.zeros(num_segments, config.text_len, device=device),
            num_rows_G=torch.ones(num_segments, dtype=torch.int32, device=device),
        )
        self._held: list[weakref.ref[TextContext] | None] = [None] * num_segments
        """Weak, so that the prompts of ended videos do not stay in memory."""

    def fill(self, contexts: tuple[TextContext, ...]) -> int:
        """Hold these prompts; returns how many had to be copied. Rows behind a prompt's own keep what they held."""
        num_copied = 0
        for segment, context in enumerate(contexts):
            held = self._held[segment]
            if held is not None and held() is context:
                continue
            num_rows = len(context.bias_T)
            self.rows.keys_GNTHK[segment, :, :num_rows] = context.keys_NTHK
            self.rows.values_GNTHK[segment, :, :num_rows] = context.values_NTHK
            self.rows.bias_GT[segment, :num_rows] = context.bias_T
            self.rows.num_rows_G[segment].fill_(num_rows)
            self._held[segment] = weakref.ref(context)
            num_copied += 1
        return num_copied


class GraphedWan:
    """A transformer whose forwards are captured once and replayed; ``CausalWan`` to its callers."""

    def __init__(
        self,
        model: CausalWan,
        *,
        window_pages: int,
        max_segments: int,
        captures: Captures,
        attention: Choice = UNTRIED,
    ) -> None:
        """Allocate what does not depend on the size of a block.

        Args:
            model: what is captured.
            window_pages: the most pages that a segment reads besides itself.
            max_segments: of one forward.
            captures: how a forward is captured.
            attention: how paged attention is computed.
        """
        self.model, self._window_pages, self._captures = model, window_pages, captures
        self.attention = attention
        device = model.device
        self._timesteps_G = torch.zeros(max_segments, device=device)
        self._starts_G = torch.zeros(max_segments, dtype=torch.int64, device=device)
        self._pages = page_table([()] * max_segments, (), device, page_tokens=1, width=window_pages)
        self._text = TextBuffers(model.config, max_segments, device, model.dtype)
        self._latents: dict[torch.Size, Tensor] = {}
        """By the size of a block [F, C, Y, X]."""
        self._captured: dict[tuple[int, torch.Size], tuple[Captured, Captured]] = {}
        """Of a shape: for full windows, and for any."""
        self._pool_address: int | None = None
        """Of the pages that captured forwards read and write; None while there is none."""

    @property
    def config(self) -> TransformerConfig:
        """Sizes."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def text_bytes(self) -> int:
        """Bytes of the buffers for prompts."""
        return sum(getattr(self._text.rows, column.name).nbytes for column in fields(TextRows))

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """Keys and values of a prompt for every layer."""
        return self.model.encode_context(embedding_TX)

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """The flow of the denoise passes. Fills the pages of the cache passes."""
        inputs = self._fill(batch)
        is_full = self._is_full(batch)
        captured = self._captured.get((inputs.num_cache, batch.latents_GFCYX.shape))
        if captured is None:
            return self._compute(inputs, cache, is_full=is_full)
        assert cache.keys_NPLHK.data_ptr() == self._pool_address, "these forwards were captured over another pool"
        replay_full, replay_growing = captured
        return (replay_full if is_full else replay_growing)().clone()  # the next replay of anything overwrites it

    def capture(self, batch: SegmentBatch, cache: PagedCache) -> None:
        """Capture the shape of a batch, for full windows and for any, over the pages that will be served from.

        The runs that this takes write the batch's pages and mean nothing; what the tables hold is data, so that windows
        may be empty, which is quickest.
        """
        address = cache.keys_NPLHK.data_ptr()
        assert self._pool_address in {None, address}, "other forwards were captured over another pool"
        self._pool_address = address
        inputs = self._fill(batch)
        full, growing = self.attention.full, self.attention.growing
        replay_growing = self._captures(lambda: self.model.compute(inputs, cache, growing))
        replay_full = replay_growing
        if full is not growing:
            replay_full = self._captures(lambda: self.model.compute(inputs, cache, full))
        self._captured[inputs.num_cache, batch.latents_GFCYX.shape] = replay_full, replay_growing

    def run_plainly(self, batch: SegmentBatch, cache: PagedCache) -> None:
        """Run a forward without a graph, for the kernels that it compiles and the memory that it takes."""
        self._compute(self._fill(batch), cache, is_full=self._is_full(batch))

    def _is_full(self, batch: SegmentBatch) -> bool:
        num_tokens = batch.num_tokens(self.config.patch_px)
        has_shorter = any(count < num_tokens for counts in batch.token_lists for count in counts)
        return not has_shorter and all(len(pages) == self._window_pages for pages in batch.page_lists)

    def _compute(self, inputs: ForwardInputs, cache: PagedCache, *, is_full: bool) -> Tensor:
        return self.model.compute(inputs, cache, self.attention.full if is_full else self.attention.growing)

    def _fill(self, batch: SegmentBatch) -> ForwardInputs:
        """Copy a batch into the buffers; returns the part of them that it takes."""
        count, block_shape = len(batch.latents_GFCYX), batch.latents_GFCYX.shape[1:]
        if block_shape not in self._latents:
            most = len(self._timesteps_G)
            self._latents[block_shape] = batch.latents_GFCYX.new_zeros(most, *block_shape)
        self._text.fill(batch.contexts)
        table = page_table(
            batch.page_lists,
            batch.write_pages,
            self.device,
            page_tokens=batch.num_tokens(self.config.patch_px),
            token_lists=batch.token_lists,
            width=self._window_pages,
        )
        inputs = ForwardInputs(
            latents_GFCYX=self._latents[block_shape][:count],
            timesteps_G=self._timesteps_G[:count],
            starts_G=self._starts_G[:count],
            text=_first(self._text.rows, count),
            pages=_first(self._pages, count),
            num_cache=len(batch.write_pages),
        )
        inputs.latents_GFCYX.copy_(batch.latents_GFCYX)
        inputs.timesteps_G.copy_(batch.timesteps_G)
        inputs.starts_G.copy_(batch.starts_G)
        for column in fields(PageTable):
            getattr(inputs.pages, column.name).copy_(getattr(table, column.name))
        return inputs


def _first(rows: Rows, count: int) -> Rows:
    """The rows of the first segments, at their addresses."""
    return type(rows)(*(getattr(rows, column.name)[:count] for column in fields(rows)))
