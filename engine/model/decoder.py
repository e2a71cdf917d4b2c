"""The one type through which the decode stage sees whichever network turns latents into pixels.

Knows no weights, no request and no video format. Sources: spec section 5 (Wan) and ``vae`` spec section 5 (tiny).
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind
from engine.model.decode_state import DecodeState
from engine.model.tiny_vae import TinyVae
from engine.model.vae import WanVae

__all__ = ["DecodeState", "Decoder", "build_decoder", "store_channels_last"]


class Decoder(Protocol):
    """Decodes a stream part by part, with the same result as all at once."""

    def decode(self, latents_TCHW: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Return RGB pixels in [0, 1] as float32 and the next state; see the networks for shapes and frame counts."""
        ...


def build_decoder(config: DecoderConfig, *, with_encoder: bool = False) -> WanVae | TinyVae:
    """Return the network ``config`` describes with fresh weights; the encoder too where something is to be encoded."""
    if config.kind is DecoderKind.WAN:
        return WanVae(config, with_encoder=with_encoder)
    return TinyVae(config, with_encoder=with_encoder)


def store_channels_last(network: nn.Module) -> None:
    """Store the weights of all convolutions channels-last; their outputs are then stored so too. No value changes.

    Tensor cores read channels side by side: from other formats cuDNN copies before and after each convolution (``vae``
    spec section 4).
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=formats[layer.weight.dim()])
