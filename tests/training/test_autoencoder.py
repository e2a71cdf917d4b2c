"""The autoencoder of training against the product's decoder, and what its latents promise."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.model.tiny_vae import STRIDE
from training import autoencoder
from training.autoencoder import DECODER, Autoencoder, ClipEncoder, decode_clips, draw_clips, load_autoencoder


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    torch.manual_seed(0)
    fresh = Autoencoder()
    for parameter in fresh.parameters():
        if parameter.ndim == 4 and not parameter.any():
            torch.nn.init.kaiming_normal_(parameter)
    return fresh


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return draw_clips(np.random.default_rng(3), whole=False)[:3, :8, :, :24, :16]


@torch.no_grad()
def test_clips_are_decoded_as_the_product_decodes_streams(network: Autoencoder) -> None:
    latents = torch.randn(2, 3, DECODER.latent_channels, 3, 2)
    together = decode_clips(network.decoder, latents).clamp(0, 1)
    assert together.shape == (2, 4 * 3 - 3, 3, 24, 16)
    for clip, found in zip(latents, together, strict=True):
        torch.testing.assert_close(found, network.decoder.decode(clip, None)[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_latent_frame_depends_on_its_own_four_frames_alone(network: Autoencoder) -> None:
    encoder, clips = network.encoder.eval(), torch.rand(3, 8, 3, 24, 16)
    both = encoder(clips)
    assert both.shape == (3, 2, DECODER.latent_channels, 3, 2)
    torch.testing.assert_close(both[:, 1:], encoder(clips[:, STRIDE:]), atol=1e-5, rtol=1e-4)
    assert (both[:, 0] - both[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_latents_have_zero_mean_and_unit_variance(clips: Tensor) -> None:
    torch.manual_seed(1)
    encoder = ClipEncoder(DECODER.latent_channels, width=8, num_blocks=1).train()
    for _ in range(200):
        latents = encoder(clips)
    channels = latents.transpose(0, 2).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(DECODER.latent_channels), atol=0.02, rtol=0)
    torch.testing.assert_close(channels.std(1), torch.ones(DECODER.latent_channels), atol=0.05, rtol=0)
    torch.testing.assert_close(encoder.eval()(clips), latents, atol=0.05, rtol=0.05)


def test_both_sides_learn_from_pictures(network: Autoencoder, clips: Tensor) -> None:
    network.train().zero_grad()
    (decode_clips(network.decoder, network.encoder(clips)) - clips[:, STRIDE - 1 :]).square().mean().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_a_decoder_can_go_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Tensor) -> None:
    monkeypatch.setattr(autoencoder, "draw_clips", lambda rng, whole: clips)
    monkeypatch.setattr(autoencoder, "check", lambda network, folder: {})
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["autoencoder", "--steps", "2", "--threads", "1", "--folder"]
    monkeypatch.setattr(sys, "argv", [*common, str(first)])
    autoencoder.main()
    monkeypatch.setattr(sys, "argv", [*common, str(second), "--start", str(first), "--decoder-only"])
    autoencoder.main()
    before, after = (load_autoencoder(folder, torch.device("cpu")).state_dict() for folder in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_the_same_numbers_draw_the_same_clips() -> None:
    first, again, other = (draw_clips(np.random.default_rng(seed), whole=True) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (2, 36, 3, 128, 128) and first.min() >= 0 and first.max() <= 1
