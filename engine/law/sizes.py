"""How many weights the networks have, and how much of a stream a decoder remembers: counted from their sizes alone.

A file need not be opened and a network need not be built for it. Each count equals what the networks of
``engine.model`` hold; ``tests/law/test_sizes.py`` compares them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from engine.config import LATENT_STRIDE_PX, DecoderConfig, DecoderKind, TextConfig, TransformerConfig

WAN_HISTORY_FRAMES, TINY_HISTORY_FRAMES = 2, 1
"""Frames of its input that a layer which looks back in time keeps."""
RGB = 3


def transformer_linear_weights(config: TransformerConfig) -> int:
    """Weights that may be held in 8 bits: queries, keys, values and feed-forward, in all layers but first and last."""
    return max(0, config.num_layers - 2) * (3 * config.dim**2 + 2 * config.dim * config.ffn_dim)


def transformer_weights(config: TransformerConfig) -> int:
    """Weights of the transformer."""
    dim, ffn_dim, patch = config.dim, config.ffn_dim, config.in_dim * config.patch_px**2
    attention = 4 * _linear(dim, dim) + 2 * dim
    layer = 6 * dim + 2 * attention + 2 * dim + _linear(dim, ffn_dim) + _linear(ffn_dim, dim)
    embeddings = _linear(patch, dim) + _linear(config.text_dim, dim) + _linear(config.freq_dim, dim)
    embeddings += 2 * _linear(dim, dim) + _linear(dim, 6 * dim)
    rows, columns = config.position_grid or (0, 0)
    positions = dim * (rows * columns + (config.position_frames or 0))
    return config.num_layers * layer + embeddings + positions + 2 * dim + _linear(dim, patch)


def text_weights(config: TextConfig) -> int:
    """Weights of the text encoder; the table of tokens counts once."""
    attention = 4 * config.dim * config.dim_attn + config.num_buckets * config.num_heads
    layer = attention + 3 * config.dim * config.dim_ffn + 2 * config.dim
    return config.vocab_size * config.dim + config.num_layers * layer + config.dim


def decoder_weights(config: DecoderConfig) -> int:
    """Weights that decoding needs."""
    return sum(layer.num_weights for layer in decoder_layers(config))


def decoder_state_elements(config: DecoderConfig, size_px: tuple[int, int]) -> int:
    """Numbers that a decoder keeps of one stream of this picture size."""
    return sum(layer.history_frames * layer.in_channels * layer.pixels(size_px) for layer in decoder_layers(config))


@dataclass(frozen=True, kw_only=True)
class DecoderLayer:
    """A convolution of a decoder, with the norm in front of it, if there is one."""

    in_channels: int
    out_channels: int
    taps: int
    scale: int
    """Of its input: pixels a latent pixel stands for, along each side."""
    history_frames: int = 0
    bias: bool = True
    norm: bool = False

    @property
    def num_weights(self) -> int:
        """Kernel, bias and norm."""
        kernel = self.in_channels * self.out_channels * self.taps
        return kernel + self.out_channels * self.bias + self.in_channels * self.norm

    def pixels(self, size_px: tuple[int, int]) -> int:
        """Of one frame of its input."""
        width_px, height_px = size_px
        return width_px // LATENT_STRIDE_PX * (height_px // LATENT_STRIDE_PX) * self.scale**2


def decoder_layers(config: DecoderConfig) -> Iterator[DecoderLayer]:
    """The convolutions of a decoder, from latents to pixels."""
    return _wan_layers(config) if config.kind == DecoderKind.WAN else _tiny_layers(config)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _wan_layers(config: DecoderConfig) -> Iterator[DecoderLayer]:
    widths = [config.dim * mult for mult in reversed(config.dim_mult)]
    channels, latent, history = widths[0], config.latent_channels, WAN_HISTORY_FRAMES
    yield DecoderLayer(in_channels=latent, out_channels=latent, taps=1, scale=1)
    yield DecoderLayer(in_channels=latent, out_channels=channels, taps=27, scale=1, history_frames=history)
    yield from _residual(channels, channels, 1)
    yield DecoderLayer(in_channels=channels, out_channels=3 * channels, taps=1, scale=1, norm=True)
    yield DecoderLayer(in_channels=channels, out_channels=channels, taps=1, scale=1)
    yield from _residual(channels, channels, 1)
    for level, width in enumerate(widths):
        scale = 2**level
        for _ in range(config.num_res_blocks + 1):
            yield from _residual(channels, width, scale)
            channels = width
        if level == len(widths) - 1:
            break
        if tuple(reversed(config.temporal_downsample))[level]:
            yield DecoderLayer(in_channels=width, out_channels=2 * width, taps=3, scale=scale, history_frames=history)
        yield DecoderLayer(in_channels=width, out_channels=width // 2, taps=9, scale=2 * scale)
        channels = width // 2
    scale = 2 ** (len(widths) - 1)
    yield DecoderLayer(in_channels=channels, out_channels=RGB, taps=27, scale=scale, history_frames=history, norm=True)


def _residual(channels: int, width: int, scale: int) -> Iterator[DecoderLayer]:
    for inputs in (channels, width):
        yield DecoderLayer(
            in_channels=inputs, out_channels=width, taps=27, scale=scale, history_frames=WAN_HISTORY_FRAMES, norm=True
        )
    if channels != width:
        yield DecoderLayer(in_channels=channels, out_channels=width, taps=1, scale=scale)


def _tiny_layers(config: DecoderConfig) -> Iterator[DecoderLayer]:
    yield DecoderLayer(in_channels=config.latent_channels, out_channels=config.widths[0], taps=9, scale=1)
    for level, ((width, following), growth) in enumerate(zip(pairwise(config.widths), (1, 2, 2), strict=True)):
        scale = 2**level
        for _ in range(3):
            # The first convolution of a memory block reads two pictures and keeps one.
            yield DecoderLayer(
                in_channels=width, out_channels=0, taps=0, scale=scale, history_frames=TINY_HISTORY_FRAMES
            )
            yield DecoderLayer(in_channels=2 * width, out_channels=width, taps=9, scale=scale)
            yield DecoderLayer(in_channels=width, out_channels=width, taps=9, scale=scale)
            yield DecoderLayer(in_channels=width, out_channels=width, taps=9, scale=scale)
        yield DecoderLayer(in_channels=width, out_channels=growth * width, taps=1, scale=scale, bias=False)
        yield DecoderLayer(in_channels=width, out_channels=following, taps=9, scale=2 * scale, bias=False)
    yield DecoderLayer(in_channels=config.widths[3], out_channels=RGB, taps=9, scale=8)
