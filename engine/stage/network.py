"""What a runner needs of a network.

Letters: T text rows, X their width.
"""

from typing import Protocol

import torch
from torch import Tensor

from engine.config import TransformerConfig
from engine.model.segments import PagedCache, SegmentBatch, TextContext


class Network(Protocol):
    """What a runner needs of a model; see ``engine.model.dit.CausalWan``."""

    @property
    def config(self) -> TransformerConfig:
        """Sizes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of latents and activations."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """Keys and values of a prompt for every layer."""
        ...

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """The flow of the denoise passes; fills the pages of the cache passes."""
        ...
