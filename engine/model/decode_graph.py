"""Decoding by replay: after a stream's first block all blocks are the same work, captured once for each picture size.

A CUDA graph repeats the captured work without Python and without starting kernels one by one. It reads and writes the
tensors that it was captured with, so a video's history is copied in before a replay and out after it; videos take
turns at one graph. Knows no video and no network. Source: ``vae`` spec section 5.6, item 3.

Letters: F latent frames of a block, T frames, C channels, Y and X latent height and width, H and W in pixels.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, Manifest
from engine.model.capture import Captures
from engine.model.decode_state import DecodeState
from engine.model.decoder import Decoder

Shape = tuple[int, ...]


class GraphedDecoder:
    """A decoder that replays all blocks of the captured shapes but the first ones of streams."""

    def __init__(
        self,
        decoder: Decoder,
        shapes_FCYX: Iterable[Shape],
        device: torch.device,
        captures: Captures,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Capture a steady block of each shape.

        Args:
            decoder: what runs first blocks and other shapes, and is captured; or a part of it.
            shapes_FCYX: shapes of blocks, or of the activations that a part takes.
            device: where the decoder is.
            captures: how to capture.
            dtype: of what goes in.
        """
        self.decoder = decoder
        self._steady: dict[Shape, _SteadyBlock] = {}
        buffers: tuple[Tensor, ...] = ()
        self.buffer_bytes = 0
        """Of the history that replays read, which all shapes share."""
        # The largest first: the histories of the other shapes fit in its buffers, and only one is in use at a time.
        for shape in sorted(shapes_FCYX, key=math.prod, reverse=True):
            latents_FCYX = torch.zeros(shape, dtype=dtype, device=device)
            _, state = decoder.decode(latents_FCYX, None)
            buffers = buffers or state.caches
            self.buffer_bytes = self.buffer_bytes or state.num_bytes
            pairs = zip(buffers, state.caches, strict=True)
            caches = tuple(torch.as_strided(buffer, cache.shape, cache.stride()) for buffer, cache in pairs)
            self._steady[shape] = _SteadyBlock(decoder, latents_FCYX, DecodeState(caches), captures)

    def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Decode as the decoder does, with the same arguments, results and errors."""
        steady = self._steady.get(tuple(latents_FCYX.shape))
        if state is None or steady is None:
            return self.decoder.decode(latents_FCYX, state)
        return steady.decode(latents_FCYX, state)


class _SteadyBlock:
    """The captured block of one shape, on tensors that stay where they are."""

    def __init__(self, decoder: Decoder, latents_FCYX: Tensor, state: DecodeState, captures: Captures) -> None:
        """Capture. ``latents_FCYX`` and ``state`` are what the work reads; the state is written too."""
        self._decoder = decoder
        self._latents_FCYX, self._state = latents_FCYX, state
        self._replay = captures(self._work)

    def decode(self, latents_FCYX: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Copy in, replay, copy out: the results outlive the next replay, of this graph or another."""
        self._latents_FCYX.copy_(latents_FCYX)
        self._overwrite_state(state)
        pixels_TCHW = self._replay().clone()
        return pixels_TCHW, DecodeState(tuple(cache.clone() for cache in self._state.caches))

    def _work(self) -> Tensor:
        pixels_TCHW, after = self._decoder.decode(self._latents_FCYX, self._state)
        self._overwrite_state(after)
        return pixels_TCHW

    def _overwrite_state(self, state: DecodeState) -> None:
        for kept, cache in zip(self._state.caches, state.caches, strict=True):
            kept.copy_(cache)


def block_shapes(manifest: Manifest) -> tuple[Shape, ...]:
    """Shape [F, C, Y, X] of the latents of a block, for every picture size of the model."""
    num_latent_frames, channels = manifest.rollout.latent_frames_per_block, manifest.transformer.in_dim
    return tuple(
        (num_latent_frames, channels, height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX)
        for width_px, height_px in manifest.video.sizes
    )
