"""The Wan autoencoder against recorded numbers, against diffusers, and against itself in other chunks."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.config import DecoderConfig, DecoderKind
from engine.model.decoder import DecodeState, build_decoder, store_channels_last
from engine.model.vae import WanVae

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "public-vae"
SMALL = DecoderConfig(kind=DecoderKind.WAN, dim=8, dim_mult=(1, 2, 4, 4), num_res_blocks=2)
FULL_SIZE = DecoderConfig(kind=DecoderKind.WAN)


@pytest.fixture(scope="module")
def codec() -> dict[str, Tensor]:
    return load_file(GOLDEN / "codec.safetensors")


@pytest.fixture(scope="module")
def golden_vae() -> WanVae:
    recorded = json.loads((GOLDEN / "config.json").read_text())
    config = DecoderConfig(
        kind=DecoderKind.WAN,
        latent_channels=recorded["z_dim"],
        dim=recorded["dim"],
        dim_mult=tuple(recorded["dim_mult"]),
        num_res_blocks=recorded["num_res_blocks"],
        temporal_downsample=tuple(recorded["temperal_downsample"]),
        latents_mean=tuple(recorded["latents_mean"]),
        latents_std=tuple(recorded["latents_std"]),
    )
    vae = WanVae(config, with_encoder=True)
    vae.load_state_dict(load_file(GOLDEN / "vae.safetensors"), strict=True)
    return vae


@pytest.fixture(scope="module")
def small_vae() -> WanVae:
    torch.manual_seed(0)
    vae = WanVae(SMALL, with_encoder=True)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return vae


def random_latents(num_latent_frames: int, seed: int = 1) -> Tensor:
    return torch.randn(num_latent_frames, 16, 4, 6, generator=torch.Generator().manual_seed(seed))


def decode_in(vae: WanVae, latents_TCHW: Tensor, sizes: list[int]) -> Tensor:
    state, parts = None, []
    for part_TCHW in torch.split(latents_TCHW, sizes):
        pixels_TCHW, state = vae.decode(part_TCHW, state)
        parts.append(pixels_TCHW)
    return torch.cat(parts)


@torch.inference_mode()
def test_decode_matches_the_recording(golden_vae: WanVae, codec: dict[str, Tensor]) -> None:
    pixels_TCHW, _ = golden_vae.decode(codec["latents"], None)
    torch.testing.assert_close(pixels_TCHW * 2 - 1, codec["decoded"], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_encode_matches_the_recording(golden_vae: WanVae, codec: dict[str, Tensor]) -> None:
    latents_TCHW = golden_vae.encode((codec["pixels"] + 1) / 2)
    torch.testing.assert_close(latents_TCHW, codec["encoded"], rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[3, 3, 1], [1, 6], [1] * 7, [2, 5]])
def test_decoding_in_parts_gives_the_same_frames(
    golden_vae: WanVae, codec: dict[str, Tensor], sizes: list[int]
) -> None:
    pixels_TCHW = decode_in(golden_vae, codec["latents"], sizes)
    torch.testing.assert_close(pixels_TCHW * 2 - 1, codec["decoded"], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_first_block_gives_9_frames_and_later_ones_12(small_vae: WanVae) -> None:
    pixels_TCHW, state = small_vae.decode(random_latents(3), None)
    assert pixels_TCHW.shape == (9, 3, 32, 48)
    for block in range(2):
        pixels_TCHW, state = small_vae.decode(random_latents(3, seed=block), state)
        assert pixels_TCHW.shape == (12, 3, 32, 48)


@torch.inference_mode()
def test_later_latent_frames_do_not_change_earlier_frames(small_vae: WanVae) -> None:
    latents_TCHW = random_latents(4)
    changed_TCHW = torch.cat([latents_TCHW[:3], random_latents(1, seed=2)])
    pixels_TCHW, changed_pixels_TCHW = (small_vae.decode(z, None)[0] for z in (latents_TCHW, changed_TCHW))
    torch.testing.assert_close(pixels_TCHW[:9], changed_pixels_TCHW[:9], rtol=0, atol=1e-6)
    assert not torch.allclose(pixels_TCHW[9:], changed_pixels_TCHW[9:])


@torch.inference_mode()
def test_a_state_can_be_decoded_from_twice(small_vae: WanVae) -> None:
    _, state = small_vae.decode(random_latents(3), None)
    before = [cache.clone() for cache in state.caches]
    first_TCHW, _ = small_vae.decode(random_latents(3, seed=2), state)
    second_TCHW, _ = small_vae.decode(random_latents(3, seed=2), state)
    assert torch.equal(first_TCHW, second_TCHW)
    assert all(torch.equal(cache, old) for cache, old in zip(state.caches, before, strict=True))


@torch.inference_mode()
def test_bfloat16_weights_take_and_give_float32(golden_vae: WanVae, codec: dict[str, Tensor]) -> None:
    vae = WanVae(golden_vae.config, with_encoder=True).bfloat16()
    vae.load_state_dict(golden_vae.state_dict())
    pixels_TCHW, state = vae.decode(codec["latents"], None)
    assert pixels_TCHW.dtype == torch.float32
    assert {cache.dtype for cache in state.caches} == {torch.bfloat16}
    assert float((pixels_TCHW * 2 - 1 - codec["decoded"]).abs().mean()) < 0.02
    latents_TCHW = vae.encode((codec["pixels"] + 1) / 2)
    assert latents_TCHW.dtype == torch.float32
    assert float((latents_TCHW - codec["encoded"]).abs().mean()) < 0.02


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [0, 2, 4, 8])
def test_encode_refuses_frame_counts_that_are_not_one_and_fours(small_vae: WanVae, num_frames: int) -> None:
    with pytest.raises(ValueError, match=rf"^{num_frames} frames"):
        small_vae.encode(torch.zeros(num_frames, 3, 32, 48))


@torch.inference_mode()
def test_decode_refuses_an_empty_block(small_vae: WanVae) -> None:
    with pytest.raises(ValueError, match=r"^0 latent frames"):
        small_vae.decode(random_latents(0), None)


def test_full_size_has_the_tensors_of_the_checkpoint() -> None:
    with torch.device("meta"):
        vae = build_decoder(FULL_SIZE, with_encoder=True)
    tensors = vae.state_dict()
    assert len(tensors) == 194
    assert sum(tensor.numel() for tensor in tensors.values()) == 126_892_531


@torch.inference_mode()
def test_full_size_state_has_32_caches_of_the_documented_size() -> None:
    with torch.device("meta"):
        vae = WanVae(FULL_SIZE, with_encoder=False)
        _, state = vae.decode(torch.empty(3, 16, 60, 104), None)
    assert len(state.caches) == 32
    assert state.num_bytes == 944_286_720 * 4


@pytest.mark.slow
@torch.inference_mode()
def test_decode_and_encode_agree_with_diffusers(small_vae: WanVae) -> None:
    diffusers = pytest.importorskip("diffusers")
    other = diffusers.AutoencoderKLWan(
        base_dim=SMALL.dim,
        z_dim=SMALL.latent_channels,
        dim_mult=list(SMALL.dim_mult),
        num_res_blocks=SMALL.num_res_blocks,
        attn_scales=[],
        temperal_downsample=list(SMALL.temporal_downsample),
    ).eval()
    other.load_state_dict(
        {diffusers_name(name): tensor for name, tensor in small_vae.state_dict().items()}, strict=True
    )

    latents_TCHW = random_latents(4)
    decoded_BCTHW = other.decode(latents_TCHW.transpose(0, 1)[None]).sample
    pixels_TCHW, _ = small_vae.decode(latents_TCHW, None)
    torch.testing.assert_close(pixels_TCHW * 2 - 1, decoded_BCTHW[0].transpose(0, 1), rtol=0, atol=1e-4)

    pixels_TCHW = torch.rand(13, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    encoded_BCTHW = other.encode((pixels_TCHW * 2 - 1).transpose(0, 1)[None]).latent_dist.mode()
    torch.testing.assert_close(small_vae.encode(pixels_TCHW), encoded_BCTHW[0].transpose(0, 1), rtol=0, atol=1e-4)


RENAMES = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"^encoder\.downsamples\.", "encoder.down_blocks."),
]


def diffusers_name(name: str) -> str:
    """Spec section 2.3: diffusers nests the decoder's flat list by level, residual blocks first, then an upsampler."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    if match := re.match(r"decoder\.upsamples\.(\d+)\.(.*)", name):
        level, place = divmod(int(match[1]), SMALL.num_res_blocks + 2)
        is_upsampler = place == SMALL.num_res_blocks + 1
        name = f"decoder.up_blocks.{level}.{'upsamplers.0' if is_upsampler else f'resnets.{place}'}.{match[2]}"
    return name


@pytest.mark.parametrize("cuts", [(10,), (1, 16), (9, 12), tuple(range(1, 17))])
@pytest.mark.parametrize("is_channels_last", [False, True])
def test_parts_that_hand_over_do_what_the_whole_does(
    small_vae: WanVae, cuts: tuple[int, ...], is_channels_last: bool
) -> None:
    vae = WanVae(SMALL, with_encoder=False)
    vae.load_state_dict(small_vae.state_dict(), strict=False)
    if is_channels_last:
        store_channels_last(vae)
    parts = [vae.part(begin, end) for begin, end in pairwise((0, *cuts, 17))]
    states: list[DecodeState | None] = [None] * len(parts)
    whole = None
    with torch.inference_mode():
        for num_latent_frames in (3, 3, 1, 2):
            x_TCHW = latents_TCHW = random_latents(num_latent_frames, num_latent_frames)
            expected_TCHW, whole = vae.decode(latents_TCHW, whole)
            for index, part in enumerate(parts):
                x_TCHW, states[index] = part.decode(x_TCHW.contiguous(), states[index])
            # Not bit for bit: in what order a layer sums depends on how its input lies in memory.
            torch.testing.assert_close(x_TCHW, expected_TCHW, rtol=0, atol=1e-5)


def test_a_part_holds_no_weights_of_others(small_vae: WanVae) -> None:
    parts = [small_vae.part(begin, begin + 1) for begin in range(17)]
    names = [parameter.data_ptr() for part in parts for parameter in part.parameters()]
    decoding = [*small_vae.conv2.parameters(), *small_vae.decoder.parameters()]
    assert sorted(names) == sorted(parameter.data_ptr() for parameter in decoding)
