"""Captureded decoding against plain decoding, for both networks, with streams that take turns."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind
from engine.manifest import read_manifest
from engine.model.capture import Capture, Captured, Captures, cuda_graphs
from engine.model.decode_graph import GraphedDecoder, block_shapes
from engine.model.decoder import Decoder, DecodeState, build_decoder, store_channels_last
from engine.model.tiny_vae import TinyVae
from engine.model.vae import WanVae

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WAN = DecoderConfig(kind=DecoderKind.WAN, dim=4, num_res_blocks=1, latents_mean=(0.5,) * 16, latents_std=(2.0,) * 16)
TINY = DecoderConfig(kind=DecoderKind.TINY, widths=(16, 16, 8, 8))
WIDE, TALL, SQUARE = (3, 16, 4, 6), (3, 16, 6, 4), (3, 16, 4, 4)


@pytest.fixture(params=[WAN, TINY], ids=["wan", "tiny"])
def network(request: pytest.FixtureRequest) -> WanVae | TinyVae:
    torch.manual_seed(0)
    return build_decoder(request.param).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def as_a_worker_runs() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Watched:
    """A decoder that notes where the tensors are that it is given."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.places: list[tuple[int, ...]] = []

    def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        if state is not None:
            self.places.append((latents_FCYX.data_ptr(), *(cache.data_ptr() for cache in state.caches)))
        return self.decoder.decode(latents_FCYX, state)


def plainly(work: Captured) -> Captured:
    """In place of a CUDA graph."""
    return work


def like_a_graph(work: Captured) -> Captured:
    """As CUDA graphs do it: the work runs before anyone asks for it, and its output stays in one place."""
    output = work()

    def replay() -> Tensor:
        return output.copy_(work())

    return replay


def blocks_of(stream: int, shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(stream)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def in_turns(decoder: Decoder, streams: list[list[Tensor]]) -> list[list[Tensor]]:
    """Decode one block of every stream, then the next; what was decoded is kept and not copied."""
    states: list[DecodeState | None] = [None] * len(streams)
    pixels: list[list[Tensor]] = [[] for _ in streams]
    for blocks in zip(*streams, strict=True):
        for index, latents_FCYX in enumerate(blocks):
            pixels_TCHW, states[index] = decoder.decode(latents_FCYX, states[index])
            pixels[index].append(pixels_TCHW)
    return pixels


def assert_same(found: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("capture", [plainly, like_a_graph])
def test_streams_that_take_turns_give_the_frames_of_the_plain_decoder(network: Decoder, capture: Capture) -> None:
    streams = [blocks_of(0, WIDE), blocks_of(1, TALL), blocks_of(2, WIDE), blocks_of(3, SQUARE)]
    graphed = GraphedDecoder(network, [SQUARE, WIDE, TALL], CPU, Captures(capture))
    assert_same(in_turns(graphed, streams), in_turns(network, streams))


def test_a_replay_always_reads_the_same_tensors(network: Decoder) -> None:
    watched = Watched(network)
    in_turns(GraphedDecoder(watched, [WIDE, SQUARE], CPU, Captures(plainly)), [blocks_of(0, WIDE), blocks_of(1, WIDE)])
    assert len(watched.places) == 2 * 2
    assert len(set(watched.places)) == 1


def test_histories_of_all_sizes_share_one_place(network: Decoder) -> None:
    watched = Watched(network)
    in_turns(
        GraphedDecoder(watched, [SQUARE, TALL, WIDE], CPU, Captures(plainly)),
        [blocks_of(0, SQUARE), blocks_of(1, WIDE)],
    )
    assert len(set(watched.places)) == 2
    assert len({place[1:] for place in watched.places}) == 1


def test_a_state_outlives_later_blocks_and_can_be_decoded_from_again(network: Decoder) -> None:
    graphed = GraphedDecoder(network, [WIDE], CPU, Captures(like_a_graph))
    first, second, third, other = blocks_of(0, WIDE, 4)
    _, state = graphed.decode(second, graphed.decode(first, None)[1])
    before = [cache.clone() for cache in state.caches]
    once_TCHW, _ = graphed.decode(third, state)
    kept_TCHW = once_TCHW.clone()
    graphed.decode(other, graphed.decode(other, None)[1])
    assert all(torch.equal(cache, old) for cache, old in zip(state.caches, before, strict=True))
    assert torch.equal(once_TCHW, kept_TCHW)
    assert torch.equal(graphed.decode(third, state)[0], kept_TCHW)


def test_blocks_of_other_shapes_are_decoded_as_they_come(network: Decoder) -> None:
    watched = Watched(network)
    streams = [blocks_of(0, (1, 16, 4, 6)), blocks_of(1, TALL)]
    assert_same(in_turns(GraphedDecoder(watched, [WIDE], CPU, Captures(plainly)), streams), in_turns(network, streams))
    assert len(set(watched.places)) == 2 * 2
    with pytest.raises(ValueError, match=r"^0 latent frames"):
        GraphedDecoder(network, [WIDE], CPU, Captures(plainly)).decode(torch.empty(0, 16, 4, 6), None)


@pytest.mark.slow
def test_bfloat16_blocks_and_weights(network: WanVae | TinyVae) -> None:
    network.bfloat16()
    streams = [[latents.bfloat16() for latents in blocks_of(stream, WIDE)] for stream in range(2)]
    expected = in_turns(network, streams)
    found = in_turns(GraphedDecoder(network, [WIDE], CPU, Captures(like_a_graph)), streams)
    assert_same(found, expected)
    assert found[0][0].dtype == torch.float32


def test_shapes_of_a_model() -> None:
    manifest = read_manifest(Path("models/tiny"))
    wide = replace(manifest, video=replace(manifest.video, sizes=((128, 128), (96, 160))))
    channels = manifest.transformer.in_dim
    assert block_shapes(wide) == ((3, channels, 16, 16), (3, channels, 20, 12))


# --- channels-last ---


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=format_of(tensor))


def format_of(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if tensor.dim() == 5 else torch.channels_last


def test_channels_last_weights_change_no_number(network: WanVae | TinyVae) -> None:
    streams = [blocks_of(0, WIDE)]
    expected = in_turns(network, streams)
    store_channels_last(network)
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    assert all(is_channels_last(weight) for weight in weights)
    for ours, theirs in zip(in_turns(network, streams)[0], expected[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_nothing_between_channels_last_convolutions_changes_the_format(network: WanVae | TinyVae) -> None:
    """On a CPU not all convolutions keep to the format of their weights; here all do, as cuDNN's."""
    changed: set[str] = set()
    store_channels_last(network)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):

            def convolve(_: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str = name) -> Tensor:
                if not is_channels_last(inputs[0]):
                    changed.add(name)
                return output.contiguous(memory_format=format_of(output))

            layer.register_forward_hook(convolve)
    first, second, third = blocks_of(0, WIDE)
    _, state = network.decode(first, None)
    assert all(is_channels_last(cache) for cache in state.caches)
    changed.clear()
    _, state = network.decode(third, network.decode(second, state)[1])
    assert all(is_channels_last(cache) for cache in state.caches)
    assert changed <= {"conv2"}, "only the latents come in another format"


# --- on a GPU ---


@pytest.mark.gpu
def test_cuda_graphs_give_the_frames_of_the_plain_decoder(network: WanVae | TinyVae) -> None:
    device = torch.device("cuda")
    network.to(device, torch.bfloat16)
    store_channels_last(network)
    shapes = [(3, 16, 8, 12), (3, 16, 12, 8)]
    streams = [[z.to(device) for z in blocks_of(stream, shapes[stream % 2])] for stream in range(3)]
    found = in_turns(GraphedDecoder(network, shapes, device, cuda_graphs(device)), streams)
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*in_turns(network, streams)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-2)
