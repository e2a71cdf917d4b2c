"""What one forward runs: the passes chosen for it, and what it needs of a network. Records; they decide nothing.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width, T text rows.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.config import TransformerConfig
from engine.messages import BlockTicket
from engine.model.segments import PagedCache, SegmentBatch, TextContext
from engine.stage.denoise import Arrival, CachePass, DenoiseStage


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


@dataclass(frozen=True)
class DenoisePass:
    """A denoise pass chosen for this tick."""

    stage: DenoiseStage
    ticket: BlockTicket
    arrival: Arrival
    latents_FCYX: Tensor


@dataclass
class Passes:
    """What one forward will run."""

    cache: list[tuple[DenoiseStage, CachePass]]
    denoise: list[DenoisePass]

    def __len__(self) -> int:
        return len(self.cache) + len(self.denoise)

    def fits(self, latents_FCYX: Tensor) -> bool:
        """Whether a block of this size may join: all segments of a forward have one size."""
        chosen = [due.latents_FCYX for _, due in self.cache] + [d.latents_FCYX for d in self.denoise]
        return not chosen or chosen[0].shape == latents_FCYX.shape

    @property
    def sessions(self) -> set[str]:
        """Sessions that take part."""
        return {due.session for _, due in self.cache} | {denoise.ticket.session for denoise in self.denoise}
