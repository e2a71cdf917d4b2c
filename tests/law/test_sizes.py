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
    decoder_units,
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
from engine.model.vae import WanVae

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
    units = decoder_units(config)
    assert decoder_weights(units) == count(decoder)
    assert decoder_state_elements(units, size_px) == sum(tensor.numel() for tensor in state.caches)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_every_unit_of_a_decoder_holds_and_hands_over(is_first: bool) -> None:
    size = (4, 6)
    with META, torch.inference_mode():
        vae = build_decoder(WAN_DECODER)
        assert isinstance(vae, WanVae)
        x_TCHW = torch.zeros(3, WAN_DECODER.latent_channels, *size)
        for index, unit in enumerate(decoder_units(WAN_DECODER)):
            part = vae.part(index, index + 1)
            out_TCHW, state = part.decode(x_TCHW, None)
            if not is_first:
                out_TCHW, state = part.decode(x_TCHW, state)
            assert decoder_weights([unit]) == count(part)
            assert decoder_state_elements([unit], (48, 32)) == sum(tensor.numel() for tensor in state.caches)
            assert out_TCHW.shape == unit.out_shape(3, size, is_first=is_first)
            x_TCHW = out_TCHW
    assert index == len(vae.decoder.units) - 1 == 16


def test_shares_of_the_decoders_work_are_those_of_its_specification() -> None:
    """``vae`` spec section 6; attention is not counted here, 0.4 % of all."""
    size_px = (832, 480)
    works = [unit.num_products(size_px) * unit.out_frames for unit in decoder_units(WAN_DECODER)]
    assert 2 * 3 * sum(works) == pytest.approx(40.6e12, rel=0.02)
    shares = [work / sum(works) for work in works]
    assert sum(shares[:5]) == pytest.approx(0.049, abs=0.006)
    assert shares[9:12] == pytest.approx([0.117] * 3, abs=0.001) and shares[12] == pytest.approx(0.039, abs=0.001)


def test_the_published_sizes() -> None:
    """As in spec sections 1.1, 2.4 and 5.4."""
    assert transformer_weights(REAL.transformer) == 1_418_996_800
    assert text_weights(UMT5_XXL) == 5_680_910_336
    assert decoder_state_elements(decoder_units(WAN_DECODER), (832, 480)) * 2 == pytest.approx(1.89e9, rel=1e-3)
