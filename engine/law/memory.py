"""What each worker holds in memory: counted from the sizes of the networks, before a weight is read.

Weights, text buffers, pages and a decoder's memory of its streams are counted exactly. What a forward and a decoder
need while they run is counted from the tensors that live at once. Contexts, graphs and what the allocator cannot use
are estimates, and so is a total. A worker's items lie on its device, but for a text encoder that is kept in the host's
memory. ``engine.law.fitting`` compares them with what there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from engine.config import LATENT_STRIDE_PX, DecoderConfig, DecoderKind, EncoderKind, TransformerConfig
from engine.engine_config import EngineConfig
from engine.law.forwards import largest_forward, steady_mixes
from engine.law.placement import DecoderPart, Placement
from engine.law.schedule import VAE_TEMPORAL_STRIDE, frames_before_block, most_start_blocks
from engine.law.sizes import (
    DecoderUnit,
    decoder_state_elements,
    decoder_units,
    decoder_weights,
    text_weights,
    transformer_linear_weights,
    transformer_weights,
)
from engine.law.window import pages_per_writer, writes_pages

ITEMSIZE = {"float32": 4, "bfloat16": 2}
FLOAT32_BYTES = 4
GPU_CONTEXT_BYTES = 600_000_000
"""A CUDA context with its libraries and their workspaces: an estimate."""
CPU_CONTEXT_BYTES = 350_000_000
"""A process that has imported torch."""
GRAPH_BYTES = 8_000_000
"""A captured forward apart from the memory it computes in: an estimate."""
SLACK = 0.03
"""Share of all but pages that the allocator cannot use: an estimate."""
ENCODER_ROWS = 43
"""Frames of full size and of the Wan encoder's base width that live at once while a picture or a clip is encoded."""
ENCODER_WEIGHTS = 53_596_928
"""Of the published Wan encoder. Others are small."""
ATTENTION_ROWS, FORWARD_ROWS = 6, 5
"""Rows as wide as the model that live at once while pages are attended to, and beside the feed-forward layer's own."""


class Item(StrEnum):
    """What memory is taken by."""

    CONTEXT = "context"
    WEIGHTS = "weights"
    TEXT_ENCODER = "text encoder"
    TEXT_BUFFERS = "text buffers"
    """Keys and values of prompts: of all segments of a forward, and of each video."""
    PAGES = "pages"
    GRAPHS = "graphs"
    """What captured forwards and decoder compute in, and the graphs themselves."""
    DECODER = "decoder"
    """Its weights, and the buffers that its graph reads."""
    DECODER_STATE = "decoder state"
    """What it remembers of each stream, and of one twice while a block is decoded."""
    ACTIVATIONS = "activations"
    """What forwards and blocks without a graph compute in."""
    SLACK = "slack"


Held = Mapping[Item, int]
"""Bytes by item."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker runs."""

    stages: tuple[int, ...]
    """Denoise stages; empty for a worker that only decodes."""
    decodes: bool
    part: DecoderPart | None = None
    """What of the decoder; None for all of it, and where nothing is decoded."""

    @classmethod
    def of(cls, placement: Placement) -> Self:
        """That of a placement."""
        return cls(stages=placement.stages, decodes=placement.decodes, part=placement.part)


def held_by(config: EngineConfig, share: Share) -> dict[Item, int]:
    """Bytes that a worker holds on its device while it serves, but for the text encoder."""
    held = dict.fromkeys(Item, 0)
    held[Item.CONTEXT] = GPU_CONTEXT_BYTES if config.on_gpu else CPU_CONTEXT_BYTES
    running = decoding = 0
    if share.stages:
        held[Item.WEIGHTS] = weights_bytes(config)
        held[Item.TEXT_BUFFERS] = _text_buffers_bytes(config, share)
        held[Item.PAGES] = _num_pages(config, share) * page_bytes(config)
        running = _segments(config, share) * segment_bytes(config)
    decoder = config.manifest.decoder
    if share.decodes and decoder is not None:
        units = units_of(config, decoder, share.part)
        state = decoder_state_bytes(config, units)
        decoding = decoding_bytes(config, decoder) if share.part is None else part_bytes(config, units, share.part)
        held[Item.DECODER] = decoder_weights(units) * _itemsize(config) + state * config.on_gpu
        held[Item.DECODER_STATE] = (config.max_videos + 1) * state
    held[Item.ACTIVATIONS] = max(running, decoding)
    if config.on_gpu:
        held[Item.GRAPHS] = max(running, decoding) + _num_graphs(config, share) * GRAPH_BYTES
    held[Item.SLACK] = int(SLACK * (sum(held.values()) - held[Item.PAGES]))
    return held


def held_while_measuring(config: EngineConfig) -> int:
    """Bytes that the first worker holds while it measures: passes of one block through all stages, then decoding."""
    rollout, decoder = config.manifest.rollout, config.manifest.decoder
    pages = (rollout.window_blocks - 1 + rollout.num_stages) * page_bytes(config)
    passes = pages + config.segments_limit * segment_bytes(config)
    resting, decoding = weights_bytes(config), 0
    if decoder is not None:
        units = units_of(config, decoder, None)
        resting += decoder_weights(units) * _itemsize(config)
        decoding = decoding_bytes(config, decoder) + 2 * decoder_state_bytes(config, units)
    context = GPU_CONTEXT_BYTES if config.on_gpu else CPU_CONTEXT_BYTES
    return context + resting + max(passes, decoding)


def text_encoder_bytes(config: EngineConfig) -> int:
    """Bytes of the text encoder where it is loaded; 0 without one."""
    text = config.manifest.text
    is_needed = config.rehearsal is None and config.recording_file is None
    return text_weights(text) * _itemsize(config) if text is not None and is_needed else 0


def weights_bytes(config: EngineConfig) -> int:
    """Bytes of the transformer."""
    sizes = config.manifest.transformer
    saved = transformer_linear_weights(sizes) * (_itemsize(config) - 1) if config.precision.fp8_linears else 0
    return transformer_weights(sizes) * _itemsize(config) - saved


def page_bytes(config: EngineConfig) -> int:
    """Bytes of one page, for blocks of the largest size: keys and values, and their scales if it is held in 8 bits."""
    sizes = config.manifest.transformer
    fp8 = config.precision.fp8_pages
    head_bytes = sizes.head_dim + FLOAT32_BYTES if fp8 else sizes.head_dim * _itemsize(config)
    num_layers = sizes.num_layers if config.rehearsal is None else 1
    return 2 * num_layers * most_tokens(config) * sizes.num_heads * head_bytes


def segment_bytes(config: EngineConfig) -> int:
    """Bytes that one segment of a forward takes at its peak, for blocks of the largest size."""
    sizes = config.manifest.transformer
    gathers = not config.precision.fp8_pages and not config.precision.int8_attention
    gathered = 2 * config.manifest.rollout.window_blocks if gathers else 0
    rows = max(sizes.ffn_dim + FORWARD_ROWS * sizes.dim, (ATTENTION_ROWS + gathered) * sizes.dim)
    rotations = sizes.head_dim // 2 * 2 * FLOAT32_BYTES
    return most_tokens(config) * (rows * _itemsize(config) + rotations)


def units_of(config: EngineConfig, decoder: DecoderConfig, part: DecoderPart | None) -> Sequence[DecoderUnit]:
    """The units of a part of the decoder, or all."""
    units = decoder_units(decoder)
    return units if part is None or config.rehearsal is not None else units[part.begin : part.end]


def decoder_state_bytes(config: EngineConfig, units: Sequence[DecoderUnit]) -> int:
    """Bytes that these units of a decoder remember of one stream of the largest size."""
    return max(decoder_state_elements(units, size) for size in config.manifest.video.sizes) * _itemsize(config)


def part_bytes(config: EngineConfig, units: Sequence[DecoderUnit], part: DecoderPart) -> int:
    """Bytes that a part takes at its peak: two receives that are posted ahead, one that is read, and its widest layer.

    A layer has its input with the history, what it makes, and the branch beside it.
    """
    num_frames = config.manifest.rollout.latent_frames_per_block
    size_px = max(config.manifest.video.sizes, key=lambda size: size[0] * size[1])
    pixels = size_px[0] // LATENT_STRIDE_PX * (size_px[1] // LATENT_STRIDE_PX)
    out = [unit.out_frames * num_frames * unit.out_channels * unit.out_scale**2 * pixels for unit in units]
    largest_in = max(
        unit.out_frames * num_frames * layer.in_channels * layer.pixels(size_px)
        for unit in units
        for layer in unit.layers
    )
    received = 0 if part.is_first else 3 * largest_in
    return (received + 4 * max(*out, largest_in)) * _itemsize(config)


def decoding_bytes(config: EngineConfig, decoder: DecoderConfig) -> int:
    """Bytes that decoding a stream's first block of the largest size takes at its peak, beside the state it returns.

    That is where the picture has its full size: a residual block and its history, in the Wan decoder's base width.
    """
    num_frames = VAE_TEMPORAL_STRIDE * config.manifest.rollout.latent_frames_per_block
    pixels = max(width_px * height_px for width_px, height_px in config.manifest.video.sizes)
    if decoder.kind == DecoderKind.WAN:
        rows = 4 * (num_frames + 2) * decoder.dim
    else:
        rows = 2 * num_frames * max(decoder.widths[2:])
    return rows * pixels * _itemsize(config)


def encoder_bytes(config: EngineConfig) -> int:
    """Bytes of the encoder of pictures, and of what it takes to encode the longest clip of the largest size."""
    encoder, rollout = config.manifest.encoder, config.manifest.rollout
    if encoder is None or config.rehearsal is not None:
        return 0
    pixels = max(width_px * height_px for width_px, height_px in config.manifest.video.sizes)
    if encoder.kind == EncoderKind.WAN:
        return FLOAT32_BYTES * (ENCODER_WEIGHTS + ENCODER_ROWS * encoder.sizes.dim * pixels)
    num_frames = frames_before_block(rollout, most_start_blocks(rollout))
    return FLOAT32_BYTES * 6 * num_frames * encoder.sizes.widths[2] * pixels


def has_room_for_encoder(config: EngineConfig, share: Share, free_bytes: int) -> bool:
    """Whether a device with so much free before its worker started holds the encoder of pictures beside all that is
    planned for it, text encoder included. The plan leaves it out: without room it works in the host's memory.
    """
    planned = sum(held_by(config, share).values()) + text_encoder_bytes(config)
    return planned + encoder_bytes(config) <= free_bytes


def most_tokens(config: EngineConfig) -> int:
    """Tokens of a block of the largest size."""
    patch_px = LATENT_STRIDE_PX * config.manifest.transformer.patch_px
    pixels = max(width_px * height_px for width_px, height_px in config.manifest.video.sizes)
    return config.manifest.rollout.latent_frames_per_block * pixels // patch_px**2


def context_bytes(sizes: TransformerConfig, itemsize: int) -> int:
    """Bytes of the keys and values of one prompt in all layers, at its longest."""
    return 2 * sizes.num_layers * sizes.text_len * sizes.dim * itemsize


def _num_pages(config: EngineConfig, share: Share) -> int:
    rollout = config.manifest.rollout
    writers = sum(writes_pages(rollout, stage) for stage in share.stages)
    return config.max_videos * writers * pages_per_writer(rollout)


def _segments(config: EngineConfig, share: Share) -> int:
    return largest_forward(config.manifest.rollout, share.stages, config.segments_limit, config.max_videos)


def _text_buffers_bytes(config: EngineConfig, share: Share) -> int:
    rows = config.max_videos + (_segments(config, share) if config.on_gpu else 0)
    return rows * context_bytes(config.manifest.transformer, _itemsize(config))


def _num_graphs(config: EngineConfig, share: Share) -> int:
    """Each forward twice: the fastest attention may take full windows only."""
    forwards = len(steady_mixes(config.manifest.rollout, share.stages, config.segments_limit))
    return 2 * forwards + len(config.manifest.video.sizes) * share.decodes


def _itemsize(config: EngineConfig) -> int:
    return ITEMSIZE[config.dtype_name]
