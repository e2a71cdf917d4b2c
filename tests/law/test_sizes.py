"""Counts from sizes alone equal what the networks hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.gpu.sizes import DRY, REAL
from benchmarks.true_shapes.sizes import MICRO
from engine.config import DecoderConfig, TextConfig, TransformerConfig
from engine.law.sizes import (
    decoder_state_elements,
    decoder_weights,
    text_weights,
    transformer_linear_weights,
    transformer_weights,
)
from engine.manifest import UMT5_XXL, WAN_DECODER, read_manifest
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.fp8_linear import Fp8Linear
from engine.model.text import umt5_encoder

TINY = read_manifest(Path("models/tiny"))
TINY_DECODER = REAL.decoders["tiny decoder"]
LEARNED = replace(TINY.transformer, position_grid=(16, 24), position_frames=21)
META = torch.device("meta")


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("config", [REAL.transformer, DRY.transformer, TINY.transformer, LEARNED])
def test_weights_of_a_transformer(config: TransformerConfig) -> None:
    with META:
        assert transformer_weights(config) == count(CausalWan(config))


def test_weights_that_may_be_held_in_8_bits() -> None:
    config = replace(DRY.transformer, num_layers=4)
    network = CausalWan(config)
    network.use_fp8_linears()
    narrow = [layer for layer in network.modules() if isinstance(layer, Fp8Linear)]
    assert transformer_linear_weights(config) == sum(layer.weight_FE.numel() for layer in narrow) > 0


@pytest.mark.parametrize("config", [UMT5_XXL, MICRO.text])
def test_weights_of_a_text_encoder(config: TextConfig) -> None:
    with META:
        encoder = umt5_encoder(config)
    tensors = {name: tensor for name, tensor in encoder.state_dict().items() if name != "encoder.embed_tokens.weight"}
    assert text_weights(config) == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize("config", [WAN_DECODER, TINY_DECODER, *DRY.decoders.values(), TINY.decoder])
def test_weights_and_memory_of_a_decoder(config: DecoderConfig) -> None:
    size_px = (96, 64)
    with META, torch.inference_mode():
        decoder = build_decoder(config)
        latents_FCYX = torch.zeros(3, config.latent_channels, size_px[1] // 8, size_px[0] // 8)
        _, state = decoder.decode(latents_FCYX, None)
        _, state = decoder.decode(latents_FCYX, state)
    assert decoder_weights(config) == count(decoder)
    assert decoder_state_elements(config, size_px) == sum(tensor.numel() for tensor in state.caches)


def test_the_published_sizes() -> None:
    """As in spec sections 1.1, 2.4 and 5.4."""
    assert transformer_weights(REAL.transformer) == 1_418_996_800
    assert text_weights(UMT5_XXL) == 5_680_910_336
    assert decoder_state_elements(WAN_DECODER, (832, 480)) * 2 == pytest.approx(1.89e9, rel=1e-3)
