"""TAEHV, the tiny video autoencoder: a fast stand-in for the Wan decoder on the same latents.

Knows neither videos nor weight files. Source: ``vae`` spec section 5; ``state_dict`` keys are the checkpoint's
(5.3-5.5), so weightless entries of a sequence keep their index. All layers are two-dimensional: time is the batch.

Shape suffixes: T pictures in time (latent frames or any rate up to frames), C channels, H and W height and width at
the layer's resolution.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import DecoderConfig
from engine.model.decode_state import DecodeState

RGB = 3
STRIDE = 4
"""Frames a latent frame stands for."""
LATENT_LIMIT = 3.0
"""The decoder squeezes latents into (-3, 3)."""


class TinyVae(nn.Module):
    """Decoder of TAEHV and, ``with_encoder``, its encoder; channels come from ``config``.

    Computes in the type of its weights; latents and pixels may come in any float type and leave as float32.
    """

    def __init__(self, config: DecoderConfig, *, with_encoder: bool) -> None:
        super().__init__()
        self.decoder = decoder_layers(config.latent_channels, config.widths)
        # The published encoder has one width throughout, which is also its decoder's width at x4.
        self.encoder = encoder_layers(config.latent_channels, config.widths[2]) if with_encoder else None

    def decode(self, latents_TCHW: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Decode the next latent frames of a stream.

        ``latents_TCHW``: any number of latent frames from 1 on, normalised as the transformer makes them. ``state``:
        what the previous call returned, None at the start of a stream; it is left as it was. Returns RGB pixels in
        [0, 1], [T', 3, 8H, 8W], and the next state. A latent frame gives 4 frames, and the first of a stream 1.
        Raises ``ValueError`` when there is no latent frame.
        """
        if latents_TCHW.shape[0] == 0:
            raise ValueError("0 latent frames cannot be decoded")
        caches = () if state is None else state.caches
        out_TCHW, caches = run_layers(self.decoder, latents_TCHW, caches)
        # A stream's first latent frame stands for one frame only; the network writes that one last.
        surplus = STRIDE - 1 if state is None else 0
        return out_TCHW[surplus:].float().clamp(0, 1), DecodeState(caches)

    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        """Encode a whole clip of RGB in [0, 1], [T, 3, 8H, 8W], to normalised latents, [ceil(T / 4), C, H, W].

        The last frame is repeated up to a multiple of 4. Raises ``ValueError`` when there is no frame.
        """
        assert self.encoder is not None, "built without its encoder"
        num_frames = pixels_TCHW.shape[0]
        if num_frames == 0:
            raise ValueError("0 frames cannot be encoded")
        padding_TCHW = pixels_TCHW[-1:].expand(-num_frames % STRIDE, -1, -1, -1)
        latents_TCHW, _ = run_layers(self.encoder, torch.cat([pixels_TCHW, padding_TCHW]), ())
        return latents_TCHW.float()


class MemoryBlock(nn.Module):
    """Three convolutions that see a picture and the one before it, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv3(2 * channels, channels),
            nn.ReLU(inplace=True),
            conv3(channels, channels),
            nn.ReLU(inplace=True),
            conv3(channels, channels),
        )

    def forward(self, x_TCHW: Tensor, previous_1CHW: Tensor) -> Tensor:
        """``previous_1CHW``: this block's input just before ``x_TCHW``; the shape of ``x_TCHW`` stays."""
        past_TCHW = torch.cat([previous_1CHW, x_TCHW[:-1]])
        h_TCHW: Tensor = self.conv(torch.cat([x_TCHW, past_TCHW], dim=1))
        return h_TCHW.add_(x_TCHW).relu_()


class GrowTime(nn.Module):
    """Turn every picture into ``growth`` consecutive ones of twice the height and width.

    The checkpoint's upsampling comes before its 1x1 convolution; the two commute, and this order costs a quarter.
    """

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.conv = nn.Conv2d(channels, growth * channels, 1, bias=False)

    def forward(self, x_TCHW: Tensor) -> Tensor:
        """Return [T * growth, C, 2H, 2W]."""
        grown_TCHW = self.conv(x_TCHW).unflatten(1, (self.growth, -1)).flatten(0, 1)
        return F.interpolate(channels_last(grown_TCHW), scale_factor=2)


class ShrinkTime(nn.Module):
    """Merge every ``shrink`` consecutive pictures into one."""

    def __init__(self, channels: int, shrink: int) -> None:
        super().__init__()
        self.shrink = shrink
        self.conv = nn.Conv2d(shrink * channels, channels, 1, bias=False)

    def forward(self, x_TCHW: Tensor) -> Tensor:
        """Return [T / shrink, C, H, W]."""
        out_TCHW: Tensor = self.conv(x_TCHW.unflatten(0, (-1, self.shrink)).flatten(1, 2))
        return out_TCHW


class Squeeze(nn.Module):
    """Soft limit on latents."""

    def forward(self, x: Tensor) -> Tensor:
        """Return values in (-3, 3), nearly unchanged when small."""
        return torch.tanh(x / LATENT_LIMIT) * LATENT_LIMIT


def channels_last(x_TCHW: Tensor) -> Tensor:
    """Store the channels of a pixel side by side: convolutions of few channels run a quarter faster so on a CPU."""
    return x_TCHW.contiguous(memory_format=torch.channels_last)


def conv3(in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution that keeps height and width, or divides them by ``stride``."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)


def decoder_layers(latent_channels: int, widths: tuple[int, int, int, int]) -> nn.Sequential:
    """Return the decoder with the checkpoint's indices; ``widths`` at latent resolution, x2, x4 and x8."""
    layers: list[nn.Module] = [Squeeze(), conv3(latent_channels, widths[0]), nn.ReLU()]
    for (width, next_width), growth in zip(pairwise(widths), (1, 2, 2), strict=True):
        layers += [MemoryBlock(width) for _ in range(3)]
        # The identity keeps the index of the upsampling, which GrowTime does.
        layers += [nn.Identity(), GrowTime(width, growth), conv3(width, next_width, bias=False)]
    return nn.Sequential(*layers, nn.ReLU(), conv3(widths[3], RGB))


def encoder_layers(latent_channels: int, width: int) -> nn.Sequential:
    """Return the encoder with the checkpoint's indices."""
    layers: list[nn.Module] = [conv3(RGB, width), nn.ReLU()]
    for shrink in (2, 2, 1):
        layers += [ShrinkTime(width, shrink), conv3(width, width, stride=2, bias=False)]
        layers += [MemoryBlock(width) for _ in range(3)]
    return nn.Sequential(*layers, conv3(width, latent_channels))


def run_layers(layers: nn.Sequential, x_TCHW: Tensor, caches: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one side of the autoencoder on the next part of a stream; without caches it is the first part.

    Returns the output and the caches for the part that comes after: the last input of every memory block.
    """
    unread, written = iter(caches), []
    x_TCHW = channels_last(x_TCHW.to(next(layers.parameters()).dtype))
    for layer in layers:
        if isinstance(layer, MemoryBlock):
            previous_1CHW = next(unread) if caches else torch.zeros_like(x_TCHW[:1])
            written.append(x_TCHW[-1:].clone())
            x_TCHW = layer(x_TCHW, previous_1CHW)
        else:
            x_TCHW = layer(x_TCHW)
    return x_TCHW, tuple(written)
