"""The batch of segments one forward works on, and the text it reads. Records only; they decide nothing.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width, N layers,
T text rows, H heads, K channels of a head, P pages, L tokens of a page.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextContext:
    """Keys and values of one prompt in every layer; they depend on the prompt and the weights alone."""

    keys_NTHK: Tensor
    values_NTHK: Tensor
    bias_T: Tensor
    """Added to a row's logits: ln(n) for a row that stands for n equal ones."""


@dataclass(frozen=True)
class SegmentBatch:
    """Segments of one forward, cache passes first. All have one picture size; sessions and stages may differ."""

    latents_GFCYX: Tensor
    """Set by the stage: each segment's block at the level that ``timesteps_G`` says."""
    timesteps_G: Tensor
    """Float32, 0 .. 1000."""
    blocks_G: Tensor
    """Absolute block indices, int64."""
    contexts: tuple[TextContext, ...]
    """The prompt of each segment."""
    page_lists: tuple[tuple[int, ...], ...]
    """Pages each segment attends to besides itself."""
    write_pages: tuple[int, ...]
    """Page each cache pass writes. Its length is the number of cache passes; the rest are denoise passes."""

    def __post_init__(self) -> None:
        """Check that the fields speak of the same segments."""
        count = len(self.latents_GFCYX)
        lengths = {count, len(self.timesteps_G), len(self.blocks_G), len(self.contexts), len(self.page_lists)}
        assert lengths == {count} and len(self.write_pages) <= count, f"segments disagree: {lengths}"


@dataclass(frozen=True)
class PagedCache:
    """Keys and values of all pages. A page is one index along P in every layer."""

    keys_NPLHK: Tensor
    values_NPLHK: Tensor
