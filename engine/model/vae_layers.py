"""The layers of the Wan video autoencoder, each run on one chunk of a stream at a time.

Knows no latent statistics, no pixel range and no order of chunks; ``engine.model.vae`` does. Source: spec sections 5.2
(primitives) and 5.4 (streaming rules). Attribute names are those of the original checkpoint (spec section 2.3), in
which the weightless entries of a sequence still take an index; hence the gaps in the ``ModuleDict`` keys.

A chunk keeps a batch of 1 in front: only a tensor of five dimensions can be channels-last. No layer changes the memory
format, so convolutions with channels-last weights make all activations and caches channels-last.

Shape suffixes: 1 the batch, C channels, T frames in time (latent frames or any rate up to pixels), H and W height and
width at the layer's resolution, N = H * W.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HISTORY_FRAMES = 2
"""Frames a 3-tap causal convolution looks back."""


class CacheTape:
    """The history of every temporal convolution during one chunk: read in execution order, written anew.

    ``caches`` is what the previous chunk left: nothing for the first chunk of a stream.
    """

    def __init__(self, caches: tuple[Tensor, ...]) -> None:
        self.is_first = not caches
        self._unread = iter(caches)
        self._written: list[Tensor] = []

    @property
    def written(self) -> tuple[Tensor, ...]:
        """What the next chunk must be given."""
        return tuple(self._written)

    def extend(self, x_1CTHW: Tensor) -> Tensor:
        """Put the history (zeros before the stream) in front of the chunk and store the last frames of the two."""
        history_1CTHW = zero_history(x_1CTHW) if self.is_first else next(self._unread)
        if x_1CTHW.is_contiguous(memory_format=torch.channels_last_3d):
            # Joined with a history in another format, this chunk and so its cache would be in that format too. A single
            # frame, as a stream's first chunk is, has strides of either.
            history_1CTHW = history_1CTHW.contiguous(memory_format=torch.channels_last_3d)
        extended_1CTHW = torch.cat([history_1CTHW, x_1CTHW], dim=2)
        self.store(extended_1CTHW[:, :, -history_1CTHW.shape[2] :])
        return extended_1CTHW

    def store(self, cache_1CTHW: Tensor) -> None:
        """Leave a cache for the next chunk; copied, so that the larger tensor it was cut from is freed."""
        self._written.append(cache_1CTHW.clone())


def zero_history(x_1CTHW: Tensor) -> Tensor:
    """Return the silence before the first frame of a stream."""
    batch, channels, _, height, width = x_1CTHW.shape
    return x_1CTHW.new_zeros(batch, channels, HISTORY_FRAMES, height, width)


def causal_conv(in_channels: int, out_channels: int) -> nn.Conv3d:
    """3x3x3 convolution that expects its history in front of the chunk, hence no padding in time."""
    return nn.Conv3d(in_channels, out_channels, 3, padding=(0, 1, 1))


class FirstConv(nn.Module):
    """A causal convolution that nothing comes before."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Convolve."""
        out_1CTHW: Tensor = self.conv(tape.extend(x_1CTHW))
        return out_1CTHW


class RmsNorm(nn.Module):
    """Scale each pixel's channel vector to length sqrt(C), then by a learned gain.

    ``inner_dims`` is the number of dimensions after the channels: 3 for 1CTHW, 2 for TCHW.
    """

    def __init__(self, channels: int, inner_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * inner_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the channel dimension; the shape stays."""
        channel_dim = -self.gamma.dim()
        return F.normalize(x, dim=channel_dim) * math.sqrt(x.shape[channel_dim]) * self.gamma


def norm_act_conv(norm: nn.Module, conv: nn.Module, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
    """Norm, SiLU and causal convolution: the step that residual blocks and heads are made of."""
    out_1CTHW: Tensor = conv(tape.extend(F.silu(norm(x_1CTHW))))
    return out_1CTHW


class Head(nn.ModuleDict):
    """Last layer of the encoder and of the decoder."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__({"0": RmsNorm(in_channels), "2": causal_conv(in_channels, out_channels)})

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Return ``out_channels`` in place of ``in_channels``."""
        return norm_act_conv(self["0"], self["2"], x_1CTHW, tape)


class ResidualBlock(nn.Module):
    """Two norm-SiLU-convolution steps beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.ModuleDict(
            {
                "0": RmsNorm(in_channels),
                "2": causal_conv(in_channels, out_channels),
                "3": RmsNorm(out_channels),
                "6": causal_conv(out_channels, out_channels),
            }
        )
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Return ``out_channels`` in place of ``in_channels``."""
        norm_1, conv_1, norm_2, conv_2 = self.residual.values()
        h_1CTHW = norm_act_conv(norm_1, conv_1, x_1CTHW, tape)
        h_1CTHW = norm_act_conv(norm_2, conv_2, h_1CTHW, tape)
        out_1CTHW: Tensor = h_1CTHW + self.shortcut(x_1CTHW)
        return out_1CTHW


class AttentionBlock(nn.Module):
    """Self-attention with one head among the pixels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, inner_dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Add to each frame what it attends to; no frame sees another, so the tape is left alone."""
        del tape
        x_TCHW = frames_of(x_1CTHW)
        qkv_TCN = self.to_qkv(self.norm(x_TCHW)).flatten(2)
        # The 1 is the head: without it the fused kernels do not apply.
        q_T1NC, k_T1NC, v_T1NC = qkv_TCN.transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        seen_T1NC = F.scaled_dot_product_attention(q_T1NC, k_T1NC, v_T1NC)
        seen_TCHW = seen_T1NC.squeeze(1).transpose(1, 2).reshape(x_TCHW.shape)
        return chunk_of(x_TCHW + self.proj(seen_TCHW))


class Downsample(nn.Module):
    """Halve height and width, and with ``halve_time`` the frame rate."""

    def __init__(self, channels: int, *, halve_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if halve_time else None

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Return half the height and width; an even number of frames halves, a stream's single first frame stays."""
        x_1CTHW = per_frame(self.resample, x_1CTHW)
        if self.time_conv is None:
            return x_1CTHW
        if tape.is_first:
            tape.store(x_1CTHW)
            return x_1CTHW
        out_1CTHW: Tensor = self.time_conv(tape.extend(x_1CTHW))
        return out_1CTHW


class Upsample(nn.Module):
    """Double height and width while halving the channels, and with ``double_time`` double the frame rate."""

    def __init__(self, channels: int, *, double_time: bool) -> None:
        super().__init__()
        self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1)) if double_time else None
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels // 2, 3, padding=1))

    def forward(self, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        """Return twice the height and width; the frames double too, save for a stream's single first frame."""
        if self.time_conv is not None:
            x_1CTHW = self._double_time(self.time_conv, x_1CTHW, tape)
        return per_frame(self.resample, x_1CTHW)

    def _double_time(self, time_conv: nn.Conv3d, x_1CTHW: Tensor, tape: CacheTape) -> Tensor:
        if tape.is_first:
            # The second frame sees zeros where the first one was: that is how the network was trained.
            tape.store(zero_history(x_1CTHW))
            return x_1CTHW
        # The first C output channels are the even frames, the others the odd ones.
        even_1CTHW, odd_1CTHW = time_conv(tape.extend(x_1CTHW)).chunk(2, dim=1)
        pairs = zip(even_1CTHW.split(1, dim=2), odd_1CTHW.split(1, dim=2), strict=True)
        return torch.cat([frame_1CTHW for pair in pairs for frame_1CTHW in pair], dim=2)


def per_frame(layer: nn.Module, x_1CTHW: Tensor) -> Tensor:
    """Run a two-dimensional layer on every frame."""
    return chunk_of(layer(frames_of(x_1CTHW)))


def frames_of(x_1CTHW: Tensor) -> Tensor:
    """Return the chunk as a batch of frames, [T, C, H, W]; nothing is copied."""
    return x_1CTHW.transpose(1, 2).flatten(0, 1)


def chunk_of(x_TCHW: Tensor) -> Tensor:
    """Undo ``frames_of``; nothing is copied."""
    x_1TCHW: Tensor = x_TCHW.unflatten(0, (1, -1))
    return x_1TCHW.transpose(1, 2)
