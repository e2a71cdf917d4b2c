"""TAEHV against a naive twin that walks through a clip frame by frame, and against itself in other chunks."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import DecoderConfig, DecoderKind
from engine.model.decoder import build_decoder
from engine.model.tiny_vae import TinyVae

PUBLISHED = DecoderConfig(kind=DecoderKind.TINY)
SMALL = DecoderConfig(kind=DecoderKind.TINY, latent_channels=16, widths=(12, 10, 8, 6))


@pytest.fixture(scope="module")
def vae() -> TinyVae:
    torch.manual_seed(0)
    vae = TinyVae(SMALL, with_encoder=True)
    for parameter in vae.parameters():
        if parameter.dim() == 4:
            # PyTorch's default shrinks the signal at every layer until only biases are left.
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            parameter.data *= 0.8
    nn.init.constant_(vae.decoder[22].bias, 0.5)
    return vae


def random_latents(num_latent_frames: int, seed: int = 1) -> Tensor:
    return torch.randn(num_latent_frames, 16, 4, 6, generator=torch.Generator().manual_seed(seed))


def random_pixels(num_frames: int) -> Tensor:
    return torch.rand(num_frames, 3, 32, 48, generator=torch.Generator().manual_seed(2))


# The naive twin: pictures [1, C, H, W] in a list, weights by their names in the checkpoint, operations in the order
# and form of the published table. It shares no code with the class.


def conv(weights: dict[str, Tensor], name: str, picture: Tensor, stride: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    padding = weight.shape[-1] // 2
    return F.conv2d(picture, weight, weights.get(f"{name}.bias"), stride=stride, padding=padding)


def naive_memory_block(weights: dict[str, Tensor], name: str, pictures: Sequence[Tensor]) -> list[Tensor]:
    out, past = [], torch.zeros_like(pictures[0])
    for picture in pictures:
        h = torch.cat([picture, past], dim=1)
        h = torch.relu(conv(weights, f"{name}.conv.0", h))
        h = torch.relu(conv(weights, f"{name}.conv.2", h))
        out.append(torch.relu(conv(weights, f"{name}.conv.4", h) + picture))
        past = picture
    return out


def naive_decode(weights: dict[str, Tensor], latents_TCHW: Tensor) -> Tensor:
    pictures = [3 * torch.tanh(picture / 3) for picture in latents_TCHW.split(1)]
    pictures = [torch.relu(conv(weights, "decoder.1", picture)) for picture in pictures]
    for first, num_grown in ((3, 1), (9, 2), (15, 2)):
        for index in range(first, first + 3):
            pictures = naive_memory_block(weights, f"decoder.{index}", pictures)
        pictures = [F.interpolate(picture, scale_factor=2, mode="nearest") for picture in pictures]
        grown = [conv(weights, f"decoder.{first + 4}.conv", picture).chunk(num_grown, dim=1) for picture in pictures]
        pictures = [conv(weights, f"decoder.{first + 5}", picture) for group in grown for picture in group]
    pictures = [conv(weights, "decoder.22", torch.relu(picture)).clamp(0, 1) for picture in pictures]
    return torch.cat(pictures[3:])


def naive_encode(weights: dict[str, Tensor], pixels_TCHW: Tensor) -> Tensor:
    pictures = list(pixels_TCHW.split(1))
    while len(pictures) % 4:
        pictures.append(pictures[-1])
    pictures = [torch.relu(conv(weights, "encoder.0", picture)) for picture in pictures]
    for first, num_merged in ((2, 2), (7, 2), (12, 1)):
        groups = [pictures[i : i + num_merged] for i in range(0, len(pictures), num_merged)]
        pictures = [conv(weights, f"encoder.{first}.conv", torch.cat(group, dim=1)) for group in groups]
        pictures = [conv(weights, f"encoder.{first + 1}", picture, stride=2) for picture in pictures]
        for index in range(first + 2, first + 5):
            pictures = naive_memory_block(weights, f"encoder.{index}", pictures)
    return torch.cat([conv(weights, "encoder.17", picture) for picture in pictures])


@torch.inference_mode()
def test_decode_matches_the_naive_twin(vae: TinyVae) -> None:
    expected_TCHW = naive_decode(vae.state_dict(), random_latents(7))
    inside = (expected_TCHW > 0) & (expected_TCHW < 1)
    assert 0.2 < float(inside.float().mean()) < 1, "the clamp hides the network, or never acts"
    pixels_TCHW, _ = vae.decode(random_latents(7), None)
    torch.testing.assert_close(pixels_TCHW, expected_TCHW, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [1, 8, 9, 11])
def test_encode_matches_the_naive_twin(vae: TinyVae, num_frames: int) -> None:
    latents_TCHW = vae.encode(random_pixels(num_frames))
    assert latents_TCHW.shape == (-(-num_frames // 4), 16, 4, 6)
    expected_TCHW = naive_encode(vae.state_dict(), random_pixels(num_frames))
    torch.testing.assert_close(latents_TCHW, expected_TCHW, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[3, 3, 1], [1, 6], [1] * 7])
def test_decoding_in_parts_gives_the_same_frames(vae: TinyVae, sizes: list[int]) -> None:
    expected_TCHW, _ = vae.decode(random_latents(7), None)
    state, parts = None, []
    for part_TCHW in torch.split(random_latents(7), sizes):
        pixels_TCHW, state = vae.decode(part_TCHW, state)
        parts.append(pixels_TCHW)
    torch.testing.assert_close(torch.cat(parts), expected_TCHW, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_first_block_gives_9_frames_and_later_ones_12(vae: TinyVae) -> None:
    pixels_TCHW, state = vae.decode(random_latents(3), None)
    assert pixels_TCHW.shape == (9, 3, 32, 48)
    for block in range(2):
        pixels_TCHW, state = vae.decode(random_latents(3, seed=block), state)
        assert pixels_TCHW.shape == (12, 3, 32, 48)


@torch.inference_mode()
def test_later_latent_frames_do_not_change_earlier_frames(vae: TinyVae) -> None:
    latents_TCHW = random_latents(4)
    changed_TCHW = torch.cat([latents_TCHW[:3], random_latents(1, seed=2)])
    pixels_TCHW, changed_pixels_TCHW = (vae.decode(z, None)[0] for z in (latents_TCHW, changed_TCHW))
    torch.testing.assert_close(pixels_TCHW[:9], changed_pixels_TCHW[:9], rtol=0, atol=1e-6)
    assert not torch.allclose(pixels_TCHW[9:], changed_pixels_TCHW[9:])


@torch.inference_mode()
def test_a_state_can_be_decoded_from_twice(vae: TinyVae) -> None:
    _, state = vae.decode(random_latents(3), None)
    before = [cache.clone() for cache in state.caches]
    first_TCHW, _ = vae.decode(random_latents(3, seed=2), state)
    second_TCHW, _ = vae.decode(random_latents(3, seed=2), state)
    assert torch.equal(first_TCHW, second_TCHW)
    assert all(torch.equal(cache, old) for cache, old in zip(state.caches, before, strict=True))


@torch.inference_mode()
def test_bfloat16_weights_take_and_give_float32(vae: TinyVae) -> None:
    expected_TCHW, _ = vae.decode(random_latents(3), None)
    half = TinyVae(SMALL, with_encoder=True).bfloat16()
    half.load_state_dict(vae.state_dict())
    pixels_TCHW, state = half.decode(random_latents(3), None)
    assert pixels_TCHW.dtype == torch.float32
    assert {cache.dtype for cache in state.caches} == {torch.bfloat16}
    assert float((pixels_TCHW - expected_TCHW).abs().mean()) < 0.02
    assert half.encode(random_pixels(5)).dtype == torch.float32


@torch.inference_mode()
def test_nothing_to_decode_or_encode_is_refused(vae: TinyVae) -> None:
    with pytest.raises(ValueError, match=r"^0 latent frames"):
        vae.decode(random_latents(0), None)
    with pytest.raises(ValueError, match=r"^0 frames"):
        vae.encode(random_pixels(0))


def test_published_size_has_the_tensors_of_the_checkpoint() -> None:
    with torch.device("meta"):
        shapes = {
            name: tuple(tensor.shape) for name, tensor in TinyVae(PUBLISHED, with_encoder=True).state_dict().items()
        }
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    assert sum(size for name, size in sizes.items() if name.startswith("decoder.")) == 9_844_611
    assert sum(size for name, size in sizes.items() if name.startswith("encoder.")) == 1_470_928
    assert shapes["decoder.1.weight"] == (256, 16, 3, 3)
    assert shapes["decoder.3.conv.0.weight"] == (256, 512, 3, 3)
    assert shapes["decoder.7.conv.weight"] == (256, 256, 1, 1)
    assert shapes["decoder.13.conv.weight"] == (256, 128, 1, 1)
    assert shapes["decoder.20.weight"] == (64, 64, 3, 3)
    assert shapes["decoder.22.weight"] == (3, 64, 3, 3)
    assert shapes["encoder.17.bias"] == (16,)


def test_a_decoder_alone_has_no_encoder_tensors() -> None:
    with torch.device("meta"):
        decoder = build_decoder(PUBLISHED)
    assert sum(tensor.numel() for tensor in decoder.state_dict().values()) == 9_844_611
    assert all(name.startswith("decoder.") for name in decoder.state_dict())


@torch.inference_mode()
def test_published_state_has_9_caches_of_the_documented_size() -> None:
    with torch.device("meta"):
        vae = TinyVae(PUBLISHED, with_encoder=False).half()
        _, state = vae.decode(torch.empty(3, 16, 60, 104), None)
    assert len(state.caches) == 9
    assert state.num_bytes == 2 * 3 * (256 * 60 * 104 + 128 * 120 * 208 + 64 * 240 * 416)
