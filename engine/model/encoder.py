"""The one type through which a worker sees whichever network turns pictures into latents, and its loading.

Computes in float32 whatever the model computes in: latents of pictures in half precision show (``vae`` spec section 4).
"""

from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.config import EncoderConfig, EncoderKind
from engine.model.decoder import build_decoder
from engine.model.names import vae_names
from engine.model.patch_encoder import PatchEncoder
from engine.model.reading import OnRead
from engine.model.tiny_vae import TinyVae
from engine.model.vae import WanVae
from engine.model.weights import ENCODER_PREFIXES, Rename, load_strictly, read_named


class Encoder(Protocol):
    """Encodes the beginning of a stream."""

    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        """Return the latents of RGB pixels in [0, 1], [1 + 4k, 3, 8Y, 8X], as [1 + k, C, Y, X]."""
        ...


def load_encoder(
    config: EncoderConfig, path: Path, device: torch.device, *, on_read: OnRead | None = None
) -> WanVae | TinyVae | PatchEncoder | None:
    """The encoder with its weights; None where a file of an autoencoder holds its decoder alone.

    Raises:
        WeightsError: the file cannot be read, or does not fit.
    """
    with torch.device("meta"):
        network = _build(config)
    tensors = read_named(path, _names_of(config))
    if not isinstance(network, PatchEncoder):
        prefixes = ENCODER_PREFIXES[config.sizes.kind]
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
        if not tensors:
            return None
    load_strictly(network, tensors, path, device=device, dtype=torch.float32, on_read=on_read)
    return network.eval().requires_grad_(False)


def _build(config: EncoderConfig) -> WanVae | TinyVae | PatchEncoder:
    if config.kind is EncoderKind.PATCHES:
        return PatchEncoder(config.sizes.latent_channels)
    network = build_decoder(config.sizes, with_encoder=True)
    del network.decoder
    if isinstance(network, WanVae):
        del network.conv2
    return network


def _names_of(config: EncoderConfig) -> Rename:
    if config.kind is EncoderKind.WAN:
        return partial(vae_names, num_res_blocks=config.sizes.num_res_blocks)
    return dict
