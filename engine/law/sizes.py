"""How many weights the networks have, and how much of a stream a decoder remembers: counted from their sizes alone.

A file need not be opened and a network need not be built for it. Each count equals what the networks of
``engine.model`` hold; ``tests/law/test_sizes.py`` compares them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

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


def decoder_weights(units: "Sequence[DecoderUnit]") -> int:
    """Weights that these units of a decoder need."""
    return sum(layer.num_weights for unit in units for layer in unit.layers)


def decoder_state_elements(units: "Sequence[DecoderUnit]", size_px: tuple[int, int]) -> int:
    """Numbers that these units of a decoder keep of one stream of this picture size."""
    layers = chain.from_iterable(unit.layers for unit in units)
    return sum(layer.history_frames * layer.in_channels * layer.pixels(size_px) for layer in layers)


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


@dataclass(frozen=True, kw_only=True)
class DecoderUnit:
    """Some layers of a decoder that stay together; between two units it may be cut (``vae`` spec section 6)."""

    layers: tuple[DecoderLayer, ...]
    out_channels: int
    out_scale: int
    """Pixels of its output that a latent pixel stands for, along each side."""
    out_frames: int
    """Frames of its output that a latent frame stands for; a stream's first one stands for 1 everywhere."""

    def num_products(self, size_px: tuple[int, int]) -> int:
        """Multiplications for one frame of its output."""
        return sum(layer.in_channels * layer.out_channels * layer.taps * layer.pixels(size_px) for layer in self.layers)

    def out_shape(self, num_latent_frames: int, size: tuple[int, int], *, is_first: bool) -> tuple[int, int, int, int]:
        """Shape [T, C, H, W] of what it makes of a block.

        Args:
            num_latent_frames: of the block.
            size: latent height and width.
            is_first: whether a stream begins with the block.
        """
        num_frames = self.out_frames * (num_latent_frames - is_first) + is_first
        return num_frames, self.out_channels, size[0] * self.out_scale, size[1] * self.out_scale


def decoder_units(config: DecoderConfig) -> tuple[DecoderUnit, ...]:
    """A decoder from latents to pixels; one that cannot be cut is one unit."""
    if config.kind == DecoderKind.WAN:
        return tuple(_wan_units(config))
    return (DecoderUnit(layers=tuple(_tiny_layers(config)), out_channels=RGB, out_scale=8, out_frames=4),)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _wan_units(config: DecoderConfig) -> Iterator[DecoderUnit]:
    """What comes before the resolution levels, each layer of the levels, and the head."""
    widths = [config.dim * mult for mult in reversed(config.dim_mult)]
    doubles_time = tuple(reversed(config.temporal_downsample))
    channels, scale, frames = widths[0], 1, 1
    yield DecoderUnit(
        layers=tuple(_wan_entry(config.latent_channels, channels)), out_channels=channels, out_scale=1, out_frames=1
    )
    for level, width in enumerate(widths):
        for _ in range(config.num_res_blocks + 1):
            layers = tuple(_residual(channels, width, scale))
            yield DecoderUnit(layers=layers, out_channels=width, out_scale=scale, out_frames=frames)
            channels = width
        if level == len(widths) - 1:
            break
        layers = tuple(_upsample(width, scale, doubles_time=doubles_time[level]))
        channels, scale, frames = width // 2, 2 * scale, frames * (1 + doubles_time[level])
        yield DecoderUnit(layers=layers, out_channels=channels, out_scale=scale, out_frames=frames)
    head = DecoderLayer(
        in_channels=channels, out_channels=RGB, taps=27, scale=scale, history_frames=WAN_HISTORY_FRAMES, norm=True
    )
    yield DecoderUnit(layers=(head,), out_channels=RGB, out_scale=scale, out_frames=frames)


def _wan_entry(latent: int, channels: int) -> Iterator[DecoderLayer]:
    history = WAN_HISTORY_FRAMES
    yield DecoderLayer(in_channels=latent, out_channels=latent, taps=1, scale=1)
    yield DecoderLayer(in_channels=latent, out_channels=channels, taps=27, scale=1, history_frames=history)
    yield from _residual(channels, channels, 1)
    yield DecoderLayer(in_channels=channels, out_channels=3 * channels, taps=1, scale=1, norm=True)
    yield DecoderLayer(in_channels=channels, out_channels=channels, taps=1, scale=1)
    yield from _residual(channels, channels, 1)


def _upsample(width: int, scale: int, *, doubles_time: bool) -> Iterator[DecoderLayer]:
    history = WAN_HISTORY_FRAMES
    if doubles_time:
        yield DecoderLayer(in_channels=width, out_channels=2 * width, taps=3, scale=scale, history_frames=history)
    yield DecoderLayer(in_channels=width, out_channels=width // 2, taps=9, scale=2 * scale)


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
