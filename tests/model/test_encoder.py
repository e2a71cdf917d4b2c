"""Encoders of pictures as workers load them: against recorded numbers, and against the decoder that ships."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.config import DecoderConfig, DecoderKind, EncoderConfig, EncoderKind
from engine.errors import WeightsError
from engine.manifest import read_manifest
from engine.model.decoder import build_decoder
from engine.model.encoder import load_encoder
from engine.model.weights import load_decoder
from training.render import render
from training.world import draw_scene

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "public-vae"
TINY = read_manifest(Path(__file__).parents[2] / "models" / "tiny")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def wan() -> EncoderConfig:
    recorded = json.loads((GOLDEN / "config.json").read_text())
    sizes = DecoderConfig(
        kind=DecoderKind.WAN,
        latent_channels=recorded["z_dim"],
        dim=recorded["dim"],
        dim_mult=tuple(recorded["dim_mult"]),
        num_res_blocks=recorded["num_res_blocks"],
        temporal_downsample=tuple(recorded["temperal_downsample"]),
        latents_mean=tuple(recorded["latents_mean"]),
        latents_std=tuple(recorded["latents_std"]),
    )
    return EncoderConfig(kind=EncoderKind.WAN, sizes=sizes)


@torch.inference_mode()
def test_the_wan_encoder_alone_gives_the_recorded_latents(wan: EncoderConfig) -> None:
    codec = load_file(GOLDEN / "codec.safetensors")
    encoder = load_encoder(wan, GOLDEN / "vae.safetensors", CPU)
    assert encoder is not None and not any(name.startswith("decoder") for name, _ in encoder.named_parameters())
    latents = encoder.encode((codec["pixels"] + 1) / 2)
    torch.testing.assert_close(latents, codec["encoded"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("lost", ["encoder.", "encoder.conv1.weight"])
def test_a_file_without_its_encoder_has_none_and_half_of_one_is_refused(
    wan: EncoderConfig, lost: str, tmp_path: Path
) -> None:
    dropped = ("encoder.", "conv1.") if lost == "encoder." else (lost,)
    tensors = {k: v for k, v in load_file(GOLDEN / "vae.safetensors").items() if not k.startswith(dropped)}
    save_file(tensors, tmp_path / "vae.safetensors")
    if lost == "encoder.":
        assert load_encoder(wan, tmp_path / "vae.safetensors", CPU) is None
    else:
        with pytest.raises(WeightsError, match=r"missing: encoder\.conv1\.weight"):
            load_encoder(wan, tmp_path / "vae.safetensors", CPU)


@torch.inference_mode()
def test_the_tiny_autoencoders_other_side(tmp_path: Path) -> None:
    sizes = DecoderConfig(kind=DecoderKind.TINY, latent_channels=16, widths=(12, 10, 8, 6))
    torch.manual_seed(0)
    whole = build_decoder(sizes, with_encoder=True)
    save_file(whole.state_dict(), tmp_path / "taew2_1.safetensors")
    encoder = load_encoder(EncoderConfig(kind=EncoderKind.TINY, sizes=sizes), tmp_path / "taew2_1.safetensors", CPU)
    assert encoder is not None
    pixels = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(encoder.encode(pixels), whole.encode(pixels))


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


@torch.inference_mode()
def test_what_the_small_model_encodes_it_draws_again() -> None:
    assert TINY.encoder is not None and TINY.encoder_file is not None
    assert TINY.decoder is not None and TINY.decoder_file is not None
    encoder = load_encoder(TINY.encoder, TINY.encoder_file, CPU)
    decoder = load_decoder(TINY.decoder, TINY.decoder_file, CPU)
    assert encoder is not None
    frames = render(draw_scene(np.random.default_rng(5)), 50, 33, 128)
    pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 255
    latents = encoder.encode(pixels)
    assert latents.shape == (9, 12, 16, 16)
    drawn, _ = decoder.decode(latents, None)
    assert psnr(drawn, pixels) > 33, "the encoder is not the one that the decoder was trained with"
    still, _ = decoder.decode(encoder.encode(pixels[:1].expand(9, -1, -1, -1)), None)
    assert min(psnr(frame, pixels[0]) for frame in still) > 32


def test_other_frame_counts_are_refused() -> None:
    assert TINY.encoder is not None and TINY.encoder_file is not None
    encoder = load_encoder(TINY.encoder, TINY.encoder_file, CPU)
    assert encoder is not None
    for num_frames in (0, 2, 4):
        with pytest.raises(ValueError, match=f"{num_frames} frames cannot be encoded"):
            encoder.encode(torch.rand(num_frames, 3, 16, 16))
