"""The autoencoder of training against the product's decoder, and what its latents promise."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.model.patch_encoder import PatchEncoder, patches
from engine.model.tiny_vae import STRIDE
from training import autoencoder
from training.autoencoder import DECODER, Autoencoder, decode_clips, draw_clips, fit, load_autoencoder


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    torch.manual_seed(0)
    fresh = Autoencoder()
    fit(fresh.encoder, draw_clips(np.random.default_rng(1), whole=False))
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


def test_the_encoder_keeps_the_principal_components_within_a_range() -> None:
    clips = draw_clips(np.random.default_rng(3), whole=False)
    encoder = PatchEncoder(DECODER.latent_channels)
    fit(encoder, clips)
    latents = encoder(clips)
    channels = latents.movedim(2, 0).flatten(1)
    inside = (channels.abs() <= autoencoder.LATENT_RANGE + 1e-3).double().mean(1)
    assert bool((abs(inside - autoencoder.RANGE_QUANTILE) < 2e-3).all())
    covariance = torch.cov(channels.double())
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-3, rtol=0)
    lengths = encoder.components.norm(dim=1)
    drawn = torch.einsum("btcyx,cp->btyxp", latents, encoder.components / lengths[:, None] ** 2)
    seen = 2 * patches(clips).unflatten(0, (len(clips), -1)) - 1 - encoder.mean
    kept, lost = (part.square().sum().item() / seen.square().sum().item() for part in (drawn, seen - drawn))
    assert kept + lost == pytest.approx(1, abs=1e-4) and kept > 0.95


def test_the_decoder_learns_from_pictures_and_the_encoder_is_fixed(network: Autoencoder, clips: Tensor) -> None:
    network.train().zero_grad()
    (decode_clips(network.decoder, network.encoder(clips)) - clips[:, STRIDE - 1 :]).square().mean().backward()
    names = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert names == {name for name, _ in network.named_parameters()}
    assert all(name.startswith("decoder.") for name in names)


@pytest.mark.slow
def test_a_decoder_can_go_on_behind_the_same_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Tensor
) -> None:
    monkeypatch.setattr(autoencoder, "draw_clips", lambda rng, whole: clips)
    monkeypatch.setattr(autoencoder, "check", lambda network, folder: {})
    monkeypatch.setattr(autoencoder, "FITTED_SCENES", 8)
    first, second = tmp_path / "first", tmp_path / "second"
    common = ["autoencoder", "--steps", "2", "--threads", "1", "--folder"]
    monkeypatch.setattr(sys, "argv", [*common, str(first)])
    autoencoder.main()
    monkeypatch.setattr(sys, "argv", [*common, str(second), "--start", str(first)])
    autoencoder.main()
    before, after = (load_autoencoder(folder, torch.device("cpu")).state_dict() for folder in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"} and bool(before["encoder.components"].any())


def test_the_same_numbers_draw_the_same_clips() -> None:
    first, again, other = (draw_clips(np.random.default_rng(seed), whole=True) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (1, 28, 3, 128, 128) and first.min() >= 0 and first.max() <= 1
