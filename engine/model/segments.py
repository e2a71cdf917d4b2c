"""The batch of segments one forward works on, and the text it reads. Records, and how they are laid out as tensors.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width, N layers,
T text rows, H heads, K channels of a head, P pages, L tokens of a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kernels.attention.table import PageTable, page_table
from kernels.fp8.formula import PageScales


@dataclass(frozen=True)
class TextContext:
    """Keys and values of one prompt in every layer; they depend on the prompt and the weights alone."""

    keys_NTHK: Tensor
    values_NTHK: Tensor
    bias_T: Tensor
    """Added to a row's logits: ln(n) for a row that stands for n equal ones."""


@dataclass(frozen=True)
class SegmentBatch:
    """Segments of one forward, cache passes first. All have one picture size; videos and stages may differ."""

    latents_GFCYX: Tensor
    """Set by the stage: each segment's block at the level that ``timesteps_G`` says."""
    timesteps_G: Tensor
    """Float32, 0 .. 1000."""
    starts_G: Tensor
    """The latent frame that each segment's block begins at, counted from the video's first; int64."""
    contexts: tuple[TextContext, ...]
    """The prompt of each segment."""
    page_lists: tuple[tuple[int, ...], ...]
    """Pages each segment attends to besides itself."""
    write_pages: tuple[int, ...]
    """Page each cache pass writes. Its length is the number of cache passes; the rest are denoise passes."""
    token_lists: tuple[tuple[int, ...], ...] = ()
    """How many tokens each page in ``page_lists`` holds, at most those of a segment; empty where all hold so many."""

    def __post_init__(self) -> None:
        """Check that the fields speak of the same segments."""
        count = len(self.latents_GFCYX)
        lengths = {count, len(self.timesteps_G), len(self.starts_G), len(self.contexts), len(self.page_lists)}
        assert lengths == {count} and len(self.write_pages) <= count, f"segments disagree: {lengths}"

    def num_tokens(self, patch_px: int) -> int:
        """Tokens of a segment."""
        _, num_frames, _, height, width = self.latents_GFCYX.shape
        return num_frames * (height // patch_px) * (width // patch_px)


@dataclass(frozen=True)
class PagedCache:
    """Keys and values of all pages. A page is one index along P in every layer."""

    keys_NPLHK: Tensor
    values_NPLHK: Tensor
    key_scales_NPHL: Tensor | None = None
    """Float32: what multiplies each token of each head of pages in 8 bits; None for other pages."""
    value_scales_NPHL: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there is."""
        every = (self.keys_NPLHK, self.values_NPLHK, self.key_scales_NPHL, self.value_scales_NPHL)
        return tuple(x for x in every if x is not None)

    def scales(self, layer: int) -> PageScales | None:
        """Those of one layer."""
        if self.key_scales_NPHL is None or self.value_scales_NPHL is None:
            return None
        return PageScales(self.key_scales_NPHL[layer], self.value_scales_NPHL[layer])


@dataclass(frozen=True)
class TextRows:
    """The prompts of all segments, padded to one number of rows."""

    keys_GNTHK: Tensor
    values_GNTHK: Tensor
    bias_GT: Tensor
    num_rows_G: Tensor
    """Int32: the rows that count."""

    def behind(self, first: int) -> "TextRows":
        """Those of the segments from ``first`` on."""
        live = slice(first, None)
        return TextRows(self.keys_GNTHK[live], self.values_GNTHK[live], self.bias_GT[live], self.num_rows_G[live])


@dataclass(frozen=True)
class ForwardInputs:
    """A batch as the network reads it: tensors on its device, and the one number that shapes the computation."""

    latents_GFCYX: Tensor
    timesteps_G: Tensor
    starts_G: Tensor
    text: TextRows
    pages: PageTable
    num_cache: int
    """Cache passes; they are the first segments."""


def lay_out(batch: SegmentBatch, patch_px: int) -> ForwardInputs:
    """Put a batch into tensors, once for all layers.

    Raises:
        ValueError: ``token_lists`` does not suit ``page_lists``.
    """
    return ForwardInputs(
        latents_GFCYX=batch.latents_GFCYX,
        timesteps_G=batch.timesteps_G,
        starts_G=batch.starts_G,
        text=stack_text(batch.contexts),
        pages=page_table(
            batch.page_lists,
            batch.write_pages,
            batch.latents_GFCYX.device,
            page_tokens=batch.num_tokens(patch_px),
            token_lists=batch.token_lists,
        ),
        num_cache=len(batch.write_pages),
    )


def stack_text(contexts: Sequence[TextContext]) -> TextRows:
    """Pad prompts to the longest. What pads is zero and never read."""
    num_rows = [len(context.bias_T) for context in contexts]
    longest = max(num_rows)

    def padded(rows: Tensor, axis: int) -> Tensor:
        missing = longest - rows.shape[axis]
        return functional.pad(rows, [0, 0] * (rows.ndim - axis - 1) + [0, missing]) if missing else rows

    return TextRows(
        keys_GNTHK=torch.stack([padded(context.keys_NTHK, 1) for context in contexts]),
        values_GNTHK=torch.stack([padded(context.values_NTHK, 1) for context in contexts]),
        bias_GT=torch.stack([padded(context.bias_T, 0) for context in contexts]),
        num_rows_G=torch.tensor(num_rows, dtype=torch.int32).to(contexts[0].bias_T.device, non_blocking=True),
    )
