"""What the plan counts against what workers allocate: pages, buffers, activations and decoders."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import DecoderConfig, Order
from engine.engine_config import EngineConfig, Precision
from engine.law.memory import (
    Item,
    Share,
    context_bytes,
    decoder_state_bytes,
    decoding_bytes,
    encoder_bytes,
    has_room_for_encoder,
    held_by,
    most_tokens,
    page_bytes,
    segment_bytes,
    text_encoder_bytes,
    weights_bytes,
)
from engine.law.sizes import decoder_units
from engine.manifest import WAN_DECODER, WAN_ENCODER, WAN_VIDEO, read_manifest
from engine.model.capture import Captures
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.graphs import GraphedWan
from engine.model.segments import PagedCache, SegmentBatch, TextContext, lay_out
from engine.model.vae import WanVae
from engine.stage import build
from engine.stage.progress import Progress
from kernels.attention.choice import PagedAttention
from tests import fused_meta
from tests.law.published import WAN, wan
from tests.live_bytes import LiveBytes

TINY = read_manifest(Path("models/tiny"))
ALL = Share(stages=(0, 1, 2, 3), decodes=True)
META, CPU = torch.device("meta"), torch.device("cpu")


def tiny(**changes: object) -> EngineConfig:
    return replace(EngineConfig(manifest=TINY), **changes)


@pytest.mark.parametrize("precision", [Precision(), Precision(kv_dtype="fp8")])
@pytest.mark.parametrize("order", Order)
def test_pages_are_those_that_are_allocated(precision: Precision, order: Order) -> None:
    rollout = replace(TINY.rollout, order=order)
    config = tiny(manifest=replace(TINY, rollout=rollout), precision=precision, max_videos=3)
    for stages in ((0, 1, 2, 3), (1, 2), (3,)):
        pool = build.pages(config, CPU, stages)
        assert pool.page_bytes == page_bytes(config)
        held = held_by(config, Share(stages=stages, decodes=False))
        assert held[Item.PAGES] == sum(tensor.nbytes for tensor in pool.cache.tensors)


def test_a_page_of_the_published_model() -> None:
    """Spec section 1.5: 28 pages a video of 0.863 GB each; 0.445 GB in 8 bits."""
    assert page_bytes(wan()) == 862_617_600
    assert page_bytes(wan(precision=Precision(kv_dtype="fp8"))) == pytest.approx(0.445e9, rel=2e-3)
    assert held_by(wan(max_videos=1), ALL)[Item.PAGES] == 28 * page_bytes(wan())


def test_pages_have_the_largest_size_that_is_served() -> None:
    smaller = replace(WAN, video=replace(WAN_VIDEO, sizes=((480, 480),)))
    assert most_tokens(wan()) == 4680 and most_tokens(wan(manifest=smaller)) == 2700


def test_weights_are_those_that_are_loaded() -> None:
    model = build.transformer(tiny(), CPU, Progress(lambda _: None))
    assert isinstance(model, CausalWan)
    assert weights_bytes(tiny()) == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert text_encoder_bytes(wan()) == 2 * 5_680_910_336


def test_weights_in_8_bits() -> None:
    config = tiny(precision=Precision(linear_dtype="fp8"), dtype="bfloat16", manifest=replace(TINY, dtype="bfloat16"))
    with torch.inference_mode():
        model = CausalWan(TINY.transformer).to(torch.bfloat16).requires_grad_(False)
        model.use_fp8_linears()
    held = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert weights_bytes(config) == pytest.approx(held, rel=0.02)


def test_text_buffers_are_those_of_all_segments_and_all_videos() -> None:
    config = replace(tiny(max_videos=3), devices=("cuda:0",))
    held = held_by(config, ALL)[Item.TEXT_BUFFERS]
    itemsize = 2 if config.dtype_name == "bfloat16" else 4
    model = CausalWan(TINY.transformer).to(getattr(torch, config.dtype_name))
    graphed = GraphedWan(model, window_pages=6, max_segments=8, captures=Captures(lambda work: work))
    rows = torch.zeros(TINY.transformer.text_len, TINY.transformer.text_dim, dtype=model.dtype)
    with torch.inference_mode():
        context = graphed.encode_context(rows)
    one = context.keys_NTHK.nbytes + context.values_NTHK.nbytes
    assert context_bytes(TINY.transformer, itemsize) == one
    assert held == pytest.approx(graphed.text_bytes + 3 * one, rel=0.01)


def gathered(window_blocks: int) -> PagedAttention:
    """Copies all keys and values of a window side by side before it attends, as libraries' attention needs them."""

    def attend(q_GLHK: Tensor, k_GLHK: Tensor, *_: object) -> Tensor:
        num_segments, num_tokens, *heads = k_GLHK.shape
        keys, values = (k_GLHK.new_empty(num_segments, window_blocks * num_tokens, *heads) for _ in range(2))
        assert keys.shape == values.shape
        return torch.empty_like(q_GLHK)

    return attend


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("mix", [(4, 4), (1, 1)])
def test_a_forward_at_true_shapes_takes_what_is_planned(gathers: bool, mix: tuple[int, int]) -> None:
    num_cache, count = mix[0], sum(mix)
    sizes, precision = WAN.transformer, Precision() if gathers else Precision(kv_dtype="fp8")
    with META:
        model = CausalWan(sizes).to(torch.bfloat16).requires_grad_(False)
        cache = PagedCache(*(torch.empty(30, 8, 4680, 12, 128, dtype=torch.bfloat16) for _ in range(2)))
        rows = torch.zeros(30, 64, 12, 128, dtype=torch.bfloat16)
        batch = SegmentBatch(
            latents_GFCYX=torch.zeros(count, 3, 16, 60, 104, dtype=torch.bfloat16),
            timesteps_G=torch.zeros(count),
            starts_G=torch.zeros(count, dtype=torch.int64),
            contexts=(TextContext(rows, rows, torch.zeros(64)),) * count,
            page_lists=((),) * count,
            write_pages=tuple(range(num_cache)),
        )
        inputs = lay_out(batch, sizes.patch_px)
    model.attention = gathered(WAN.rollout.window_blocks) if gathers else fused_meta.attend
    with torch.inference_mode(), fused_meta.fused(), META, LiveBytes() as counted:
        model.compute(inputs, cache)
    assert segment_bytes(wan(precision=precision)) * count == pytest.approx(counted.peak, rel=0.1)


@pytest.mark.parametrize("decoder", [WAN_DECODER, DecoderConfig(kind="tiny")])
def test_decoding_at_true_shapes_takes_what_is_planned(decoder: DecoderConfig) -> None:
    with META, torch.inference_mode():
        network = build_decoder(decoder).to(torch.bfloat16)
        latents_FCYX = torch.zeros(3, decoder.latent_channels, 60, 104, dtype=torch.bfloat16)
        with LiveBytes() as counted:
            pixels, state = network.decode(latents_FCYX, None)
    assert decoder_state_bytes(wan(), decoder_units(decoder)) == state.num_bytes
    beside_state = counted.peak - state.num_bytes
    assert decoding_bytes(wan(), decoder) == pytest.approx(beside_state, rel=0.1), pixels.shape


@pytest.mark.parametrize("num_frames", [9, 69])
def test_encoding_pictures_at_true_shapes_takes_what_is_counted(num_frames: int) -> None:
    with META, torch.inference_mode():
        network = WanVae(WAN_DECODER, with_encoder=True)
        weights = [*network.encoder.parameters(), *network.conv1.parameters()]
        pixels_TCHW = torch.zeros(num_frames, 3, 480, 832)
        with LiveBytes() as counted:
            network.encode(pixels_TCHW)
    config = wan()
    config = replace(config, manifest=replace(config.manifest, encoder=WAN_ENCODER))
    held = counted.peak + 4 * sum(weight.numel() for weight in weights)
    assert encoder_bytes(config) == pytest.approx(held, rel=0.1)
    planned = sum(held_by(config, ALL).values()) + text_encoder_bytes(config)
    assert has_room_for_encoder(config, ALL, planned + encoder_bytes(config))
    assert not has_room_for_encoder(config, ALL, planned + encoder_bytes(config) - 1)
    assert encoder_bytes(tiny()) < 10**9


def test_a_worker_holds_what_it_runs_alone() -> None:
    decoding = held_by(wan(), Share(stages=(), decodes=True))
    assert decoding[Item.WEIGHTS] == decoding[Item.PAGES] == decoding[Item.TEXT_BUFFERS] == 0
    denoising = held_by(wan(), Share(stages=(1,), decodes=False))
    assert denoising[Item.DECODER] == denoising[Item.DECODER_STATE] == 0
    assert decoding[Item.DECODER_STATE] == 3 * decoder_state_bytes(wan(), decoder_units(WAN_DECODER))


def test_a_cpu_has_no_graphs_and_a_rehearsal_no_text_encoder() -> None:
    assert held_by(tiny(), ALL)[Item.GRAPHS] == 0 < held_by(wan(), ALL)[Item.GRAPHS]
    assert text_encoder_bytes(wan(recording_file=Path("recording.safetensors"))) == 0
