"""Forwards without the host in the way: inputs at fixed addresses, one CUDA graph a shape, tables as data.

A shape is the number of cache and of denoise passes and the size of a block. Everything else, which pages are read,
which block it is, whose prompt, is data in buffers that never move, so a forward is a few copies and one replay. What
is captured is ``CausalWan.compute``; ``recording`` says how, so that the same buffers can be tested without a GPU.

Letters: G segments, W columns of a page table, T text rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from engine.config import TransformerConfig
from engine.model.dit import CausalWan
from engine.model.segments import ForwardInputs, PagedCache, SegmentBatch, TextContext, TextRows, lay_out, stack_text
from kernels.attention import PageTable, page_table

Replay = Callable[[], Tensor]
"""Runs a recorded forward on what its buffers hold now; returns the same output tensor each time."""
Recording = Callable[[Callable[[], Tensor]], Replay]


def cuda_graph(forward: Callable[[], Tensor]) -> Replay:
    """Capture a forward. It runs twice before that: kernels are compiled and libraries take their workspaces."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = forward()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


@dataclass
class Recorded:
    """One shape: its buffers and its replay."""

    inputs: ForwardInputs
    replay: Replay
    contexts: tuple[TextContext, ...] = ()
    """Whose prompts the text buffers hold."""


class GraphedWan:
    """A transformer whose forwards are recorded once and replayed; ``CausalWan`` to its callers."""

    def __init__(self, model: CausalWan, window_pages: int, recording: Recording = cuda_graph) -> None:
        """``window_pages``: the most pages a segment reads besides itself."""
        self._model, self._window_pages, self._recording = model, window_pages, recording
        self._recorded: dict[tuple[int, torch.Size], Recorded] = {}

    @property
    def config(self) -> TransformerConfig:
        """Sizes."""
        return self._model.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._model.device

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """Keys and values of a prompt for every layer."""
        return self._model.encode_context(embedding_TX)

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """The flow of the denoise passes; it holds until the next call. Fills the pages of the cache passes."""
        shape = (len(batch.write_pages), batch.latents_GFCYX.shape)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(batch, cache)
        recorded = self._recorded[shape]
        self._fill(recorded, batch)
        return recorded.replay()

    def _record(self, batch: SegmentBatch, cache: PagedCache) -> Recorded:
        """Record a shape. The runs this takes write the batch's pages, with what they are about to hold anyway."""
        rows = self._model.config.text_len
        inputs = lay_out(batch)
        buffers = ForwardInputs(
            latents_GFCYX=inputs.latents_GFCYX.clone(),
            timesteps_G=inputs.timesteps_G.clone(),
            blocks_G=inputs.blocks_G.clone(),
            text=_with_room(inputs.text, rows),
            pages=self._table(batch),
            num_cache=inputs.num_cache,
        )
        return Recorded(buffers, self._recording(lambda: self._model.compute(buffers, cache)), batch.contexts)

    def _fill(self, recorded: Recorded, batch: SegmentBatch) -> None:
        buffers = recorded.inputs
        buffers.latents_GFCYX.copy_(batch.latents_GFCYX)
        buffers.timesteps_G.copy_(batch.timesteps_G)
        buffers.blocks_G.copy_(batch.blocks_G)
        _copy_table(buffers.pages, self._table(batch))
        if any(new is not old for new, old in zip(batch.contexts, recorded.contexts, strict=True)):
            _copy_text(buffers.text, stack_text(batch.contexts))
            recorded.contexts = batch.contexts

    def _table(self, batch: SegmentBatch) -> PageTable:
        return page_table(batch.page_lists, batch.write_pages, self.device, width=self._window_pages)


def _with_room(text: TextRows, num_rows: int) -> TextRows:
    """A copy that any prompt fits into."""
    missing = num_rows - text.bias_GT.shape[1]
    pad = torch.nn.functional.pad
    return TextRows(
        keys_GNTHK=pad(text.keys_GNTHK, (0, 0, 0, 0, 0, missing)),
        values_GNTHK=pad(text.values_GNTHK, (0, 0, 0, 0, 0, missing)),
        bias_GT=pad(text.bias_GT, (0, missing)),
        num_rows_G=text.num_rows_G.clone(),
    )


def _copy_text(buffers: TextRows, text: TextRows) -> None:
    """Rows behind a prompt's own keep what they held: nothing reads them."""
    num_rows = text.bias_GT.shape[1]
    buffers.keys_GNTHK[:, :, :num_rows].copy_(text.keys_GNTHK)
    buffers.values_GNTHK[:, :, :num_rows].copy_(text.values_GNTHK)
    buffers.bias_GT[:, :num_rows].copy_(text.bias_GT)
    buffers.num_rows_G.copy_(text.num_rows_G)


def _copy_table(buffers: PageTable, table: PageTable) -> None:
    for column in fields(PageTable):
        getattr(buffers, column.name).copy_(getattr(table, column.name))
