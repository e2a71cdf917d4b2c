"""The Wan2.1 video autoencoder: latents of a stream in, frames out, block by block and without seams; and back.

Knows neither videos nor weight files. Source: spec sections 5.1 (constants), 5.3 (graph) and 5.4 (streaming);
``state_dict`` keys are the original checkpoint's (spec section 2.3).

Shape suffixes: 1 the batch, C channels, T frames in time (latent frames on the latent side), H and W height and width.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engine.config import DecoderConfig
from engine.model.decode_state import DecodeState
from engine.model.vae_layers import (
    AttentionBlock,
    CacheTape,
    Downsample,
    FirstConv,
    Head,
    ResidualBlock,
    Upsample,
    causal_conv,
    chunk_of,
    frames_of,
)

RGB = 3


class WanVae(nn.Module):
    """Decoder of Wan2.1 and, ``with_encoder``, its encoder; all sizes come from ``config``.

    Computes in the type of its weights; latents and pixels may come in any float type and leave as float32.
    """

    def __init__(self, config: DecoderConfig, *, with_encoder: bool) -> None:
        super().__init__()
        self.config = config
        moments = 2 * config.latent_channels
        self.encoder = WanEncoder(config) if with_encoder else None
        self.conv1 = nn.Conv3d(moments, moments, 1) if with_encoder else None
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = WanDecoder(config)
        self._statistics = Statistics(config)

    def decode(self, latents_TCHW: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Decode the next latent frames of a stream.

        ``latents_TCHW``: any number of latent frames from 1 on, normalised as the transformer makes them. ``state``:
        what the previous call returned, None at the start of a stream; it is left as it was. Returns RGB pixels in
        [0, 1], [T', 3, 8H, 8W], and the next state. With the published sizes a latent frame gives 4 frames, and the
        first of a stream 1. Raises ``ValueError`` when there is no latent frame.
        """
        return self.part(0, len(self.decoder.units)).decode(latents_TCHW, state)

    def part(self, begin: int, end: int) -> "WanVaePart":
        """The units ``begin`` to ``end`` of the decoder, of ``engine.law.sizes.decoder_units``, with these weights."""
        return WanVaePart(self, begin, end)

    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        """Encode a whole clip: RGB in [0, 1], [1 + 4k, 3, 8H, 8W], to the posterior mean, normalised, [1 + k, C, H, W].

        (The 4 is two to the number of halvings of time in ``config``.) Raises ``ValueError`` for other frame counts.
        """
        assert self.encoder is not None and self.conv1 is not None, "built without its encoder"
        num_frames, stride = pixels_TCHW.shape[0], 2 ** sum(self.config.temporal_downsample)
        if num_frames < 1 or (num_frames - 1) % stride:
            raise ValueError(f"{num_frames} frames cannot be encoded: one more than a multiple of {stride} can")
        x_1CTHW = chunk_of((pixels_TCHW.float() * 2 - 1).to(self.conv1.weight.dtype))
        chunks_1CTHW = [x_1CTHW[:, :, :1], *torch.split(x_1CTHW[:, :, 1:], stride, dim=2)]
        h_1CTHW, _ = run_chunks(self.encoder, chunks_1CTHW, ())
        moments_TCHW = frames_of(self.conv1(h_1CTHW)).float()
        posterior_mean_TCHW = moments_TCHW[:, : self.config.latent_channels]
        mean_C11, std_C11 = self._statistics.on(pixels_TCHW.device)
        latents_TCHW: Tensor = (posterior_mean_TCHW - mean_C11) / std_C11
        return latents_TCHW


class Statistics:
    """Mean and deviation of each latent channel, [C, 1, 1], on every device where they were asked for."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._known: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation."""
        # No buffers: with the weights they would be rounded, by up to 0.4 % in bf16. Kept, because a CUDA graph cannot
        # hold the copy to its device. Not made for inference only: an encoder may be trained through.
        if device not in self._known:
            with torch.inference_mode(mode=False):
                mean_C11 = torch.tensor(self._config.latents_mean or (0.0,), device=device).view(-1, 1, 1)
                std_C11 = torch.tensor(self._config.latents_std or (1.0,), device=device).view(-1, 1, 1)
            self._known[device] = mean_C11, std_C11
        return self._known[device]


class WanVaePart(nn.Module):
    """Some adjacent units of the decoder; pushed one behind the other, all parts do what the whole does.

    What goes in and out is a block at the part's ends: latents where it is the first, pixels where it is the last, and
    activations [T, C, H, W] in the type of the weights in between.
    """

    def __init__(self, vae: WanVae, begin: int, end: int) -> None:
        super().__init__()
        units = vae.decoder.units
        assert 0 <= begin < end <= len(units), f"the decoder has {len(units)} units and no part {begin} to {end}"
        self.is_first, self.is_last = begin == 0, end == len(units)
        self.conv2 = vae.conv2 if self.is_first else None
        self.layers = nn.ModuleList(layer for unit in units[begin:end] for layer in unit)
        self._statistics = vae._statistics
        convs = [layer for layer in self.layers.modules() if isinstance(layer, nn.Conv3d)]
        is_channels_last = any(conv.weight.is_contiguous(memory_format=torch.channels_last_3d) for conv in convs)
        self._memory_format = torch.channels_last_3d if is_channels_last else torch.contiguous_format

    def decode(self, x_TCHW: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Push the next block of a stream through this part.

        ``state`` and what is returned as in ``WanVae.decode``, whose latents and pixels are only the first part's and
        the last one's. Raises ``ValueError`` when there is no frame.
        """
        num_frames = x_TCHW.shape[0]
        if num_frames == 0:
            raise ValueError("0 latent frames cannot be decoded")
        # A stream's first latent frame skips the doubling of time, so it goes through the network alone.
        first = 1 if state is None else num_frames
        chunks_1CTHW = self._enter(x_TCHW).tensor_split([first], dim=2)
        if not self.is_first:  # a hand-over keeps no memory format
            chunks_1CTHW = tuple(chunk.contiguous(memory_format=self._memory_format) for chunk in chunks_1CTHW)
        out_1CTHW, caches = run_chunks(self, chunks_1CTHW, () if state is None else state.caches)
        out_TCHW = frames_of(out_1CTHW)
        if self.is_last:
            out_TCHW = ((out_TCHW.float() + 1) / 2).clamp_(0, 1)
        return out_TCHW, DecodeState(caches)

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Push one chunk: a stream's first latent frame alone, or any number of later ones."""
        for layer in self.layers:
            x_1CTHW = layer(x_1CTHW, tape)
        return x_1CTHW

    def _enter(self, x_TCHW: Tensor) -> Tensor:
        if self.conv2 is None:
            return chunk_of(x_TCHW)
        mean_C11, std_C11 = self._statistics.on(x_TCHW.device)
        z_TCHW = (x_TCHW.float() * std_C11 + mean_C11).to(self.conv2.weight.dtype)
        z_1CTHW: Tensor = self.conv2(chunk_of(z_TCHW))
        return z_1CTHW


class WanEncoder(nn.Module):
    """From pixels in [-1, 1] to the moments before ``conv1``."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in config.dim_mult]
        channels = config.dim
        self.conv1 = causal_conv(RGB, channels)
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                layers.append(ResidualBlock(channels, width))
                channels = width
            if level < len(widths) - 1:
                layers.append(Downsample(width, halve_time=config.temporal_downsample[level]))
        self.downsamples = nn.ModuleList(layers)
        self.middle = middle_layers(channels)
        self.head = Head(channels, 2 * config.latent_channels)

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Encode one chunk: a stream's first frame alone, or as many frames as make one latent frame."""
        h_1CTHW: Tensor = self.conv1(tape.extend(x_1CTHW))
        for layer in [*self.downsamples, *self.middle, self.head]:
            h_1CTHW = layer(h_1CTHW, tape)
        return h_1CTHW


class WanDecoder(nn.Module):
    """From latents after ``conv2`` to pixels in about [-1, 1]."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in reversed(config.dim_mult)]
        double_time = list(reversed(config.temporal_downsample))
        channels = widths[0]
        self.conv1 = causal_conv(config.latent_channels, channels)
        self.middle = middle_layers(channels)
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks + 1):
                layers.append(ResidualBlock(channels, width))
                channels = width
            if level < len(widths) - 1:
                layers.append(Upsample(width, double_time=double_time[level]))
                channels = width // 2
        self.upsamples = nn.ModuleList(layers)
        self.head = Head(channels, RGB)

    @property
    def units(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The layers in order, between which units the decoder may be cut."""
        return ((FirstConv(self.conv1), *self.middle), *((layer,) for layer in self.upsamples), (self.head,))


def middle_layers(channels: int) -> nn.ModuleList:
    """Return the layers between the resolution levels and the latents, the same on both sides."""
    blocks = [ResidualBlock(channels, channels), AttentionBlock(channels), ResidualBlock(channels, channels)]
    return nn.ModuleList(blocks)


def run_chunks(
    network: nn.Module, chunks_1CTHW: Iterable[Tensor], caches: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Push chunks in order through one side of the autoencoder; empty chunks are passed over.

    ``caches``: as the previous chunk left them, none at the start of a stream. Returns the outputs
    joined in time, and the caches for the chunk that comes after.
    """
    outputs_1CTHW = []
    for chunk_1CTHW in chunks_1CTHW:
        if chunk_1CTHW.shape[2] == 0:
            continue
        tape = CacheTape(caches)
        outputs_1CTHW.append(network(chunk_1CTHW, tape))
        caches = tape.written
    return torch.cat(outputs_1CTHW, dim=2), caches
