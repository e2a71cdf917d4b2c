"""Forwards without the host in the way: inputs at fixed addresses, one CUDA graph a shape, tables as data.

A shape is the number of cache and of denoise passes and the size of a block. Everything else, which pages are read,
which block it is, whose prompt, is data in buffers that never move, so a forward is a few copies and one replay. All
shapes share one set of buffers and, since they never run at once, one pool of activations. The fastest attention may
take full windows only; a shape then has a second graph, for windows that still grow. What is captured is
``CausalWan.compute``; ``recording`` says how, so that the same buffers can be tested without a GPU.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width, N layers, T text
rows, H heads, K channels of a head.
"""

import weakref
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from engine.config import TransformerConfig
from engine.model.dit import CausalWan
from engine.model.recording import Recording, Replay
from engine.model.segments import ForwardInputs, PagedCache, SegmentBatch, TextContext, TextRows
from kernels.attention import PageTable, page_table
from kernels.attention_choice import UNTRIED, Choice

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
        """Weak, so that the prompts of ended sessions do not stay in memory."""

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
    """A transformer whose forwards are recorded once and replayed; ``CausalWan`` to its callers."""

    def __init__(
        self,
        model: CausalWan,
        *,
        window_pages: int,
        max_segments: int,
        recording: Recording,
        attention: Choice = UNTRIED,
    ) -> None:
        """Allocate what does not depend on the size of a block.

        Args:
            model: what is recorded.
            window_pages: the most pages that a segment reads besides itself.
            max_segments: of one forward.
            recording: how a forward is recorded.
            attention: how paged attention is computed.
        """
        self._model, self._window_pages, self._recording = model, window_pages, recording
        self.attention = attention
        device = model.device
        self._timesteps_G = torch.zeros(max_segments, device=device)
        self._blocks_G = torch.zeros(max_segments, dtype=torch.int64, device=device)
        self._pages = page_table([()] * max_segments, (), device, width=window_pages)
        self._text = TextBuffers(model.config, max_segments, device, model.dtype)
        self._latents: dict[torch.Size, Tensor] = {}
        """By the size of a block [F, C, Y, X]."""
        self._replays: dict[tuple[int, torch.Size], tuple[Replay, Replay]] = {}
        """Of a shape: for full windows, and for any."""

    @property
    def config(self) -> TransformerConfig:
        """Sizes."""
        return self._model.config

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations."""
        return self._model.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._model.device

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """Keys and values of a prompt for every layer."""
        return self._model.encode_context(embedding_TX)

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """The flow of the denoise passes; it holds until the next call. Fills the pages of the cache passes."""
        inputs = self._fill(batch)
        shape = (inputs.num_cache, batch.latents_GFCYX.shape)
        if shape not in self._replays:
            self._replays[shape] = self._record(inputs, cache)
        replay_full, replay_growing = self._replays[shape]
        is_full = all(len(pages) == self._window_pages for pages in batch.page_lists)
        return replay_full() if is_full else replay_growing()

    def _record(self, inputs: ForwardInputs, cache: PagedCache) -> tuple[Replay, Replay]:
        """Record a shape for full windows and for any.

        The runs that this takes write the batch's pages, wrongly where a window is not full; the replay that follows
        writes the same rows again.
        """
        full, growing = self.attention.full, self.attention.growing
        replay_growing = self._recording(lambda: self._model.compute(inputs, cache, growing))
        if full is growing:
            return replay_growing, replay_growing
        return self._recording(lambda: self._model.compute(inputs, cache, full)), replay_growing

    def _fill(self, batch: SegmentBatch) -> ForwardInputs:
        """Copy a batch into the buffers; returns the part of them that it takes."""
        count, block_shape = len(batch.latents_GFCYX), batch.latents_GFCYX.shape[1:]
        if block_shape not in self._latents:
            most = len(self._timesteps_G)
            self._latents[block_shape] = batch.latents_GFCYX.new_zeros(most, *block_shape)
        self._text.fill(batch.contexts)
        table = page_table(batch.page_lists, batch.write_pages, self.device, width=self._window_pages)
        inputs = ForwardInputs(
            latents_GFCYX=self._latents[block_shape][:count],
            timesteps_G=self._timesteps_G[:count],
            blocks_G=self._blocks_G[:count],
            text=_first(self._text.rows, count),
            pages=_first(self._pages, count),
            num_cache=len(batch.write_pages),
        )
        inputs.latents_GFCYX.copy_(batch.latents_GFCYX)
        inputs.timesteps_G.copy_(batch.timesteps_G)
        inputs.blocks_G.copy_(batch.blocks_G)
        for column in fields(PageTable):
            getattr(inputs.pages, column.name).copy_(getattr(table, column.name))
        return inputs


def _first(rows: Rows, count: int) -> Rows:
    """The rows of the first segments, at their addresses."""
    return type(rows)(*(getattr(rows, column.name)[:count] for column in fields(rows)))
