"""Twins of the networks that sleep in place of computing, and failures on order (``Rehearsal``).

Everything around them is the real thing: processes, tickets, hand-over, pages, encoder. A rehearsed block holds its own
number and its pictures show their frame numbers, so a finished video tells what was made, lost or made twice. Knows no
video and no process but the one it may have to end.

Letters: G segments, T frames or text rows, F latent frames of a block, C channels, Y and X height and width (latent
ones for latents, pixels for pictures), B bars of a painted picture, W width in pixels.
"""

import os
import time

import torch
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, TransformerConfig
from engine.engine_config import Fault, FaultKind, Rehearsal
from engine.law.schedule import NUM_TRAIN_TIMESTEPS, VAE_TEMPORAL_STRIDE
from engine.model.decode_state import DecodeState
from engine.model.segments import PagedCache, SegmentBatch, TextContext

NUM_BARS = 16
"""Bits of a painted frame number; a longer number loses its high bits."""
RGB = 3
EXIT_STATUS = 3
NAP_S = 3600.0


class RehearsedModel:
    """Stands for ``CausalWan``: every pass takes the same time, and the clean block is the block's number."""

    def __init__(self, config: TransformerConfig, rehearsal: Rehearsal) -> None:
        self.config = config
        self._pass_s = rehearsal.pass_s

    @property
    def dtype(self) -> torch.dtype:
        """Type of latents and pages."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        """The CPU: nothing is computed."""
        return torch.device("cpu")

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """A context of one zero, whatever the prompt says."""
        return TextContext(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(1))

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """Sleep for all passes of the batch. Pages are left as they are.

        Returns:
            The flow of the denoise passes [G - num_cache_passes, F, C, Y, X] as float32. It leads from each block, as
            it came, to a clean block that holds the block's index everywhere.
        """
        time.sleep(self._pass_s * len(batch.latents_GFCYX))
        denoise = slice(len(batch.write_pages), None)
        noisy_GFCYX = batch.latents_GFCYX[denoise].double()
        blocks_G = -(-batch.starts_G[denoise] // batch.latents_GFCYX.shape[1])  # up: the first may have fewer frames
        clean_G1111 = blocks_G.double().view(-1, 1, 1, 1, 1)
        sigmas_G1111 = batch.timesteps_G[denoise].double().view(-1, 1, 1, 1, 1) / NUM_TRAIN_TIMESTEPS
        return ((noisy_GFCYX - clean_G1111) / sigmas_G1111).to(self.dtype)


class RehearsedDecoder:
    """Stands for a decoder: reads a block's number from its latents and paints its frames' numbers."""

    def __init__(self, decode_s: float) -> None:
        """``decode_s``: seconds that each call takes."""
        self._decode_s = decode_s

    def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """Paint the frames of one whole block; its latents hold its number everywhere.

        Returns RGB pixels in [0, 1], float32 [T, 3, 8Y, 8X], and an empty state: which frames these are follows from
        the block alone. T is 4F, and 4F - 3 for block 0, whose first latent frame stands for one frame.
        """
        time.sleep(self._decode_s)
        num_latent_frames, _, height, width = latents_FCYX.shape
        block = round(float(latents_FCYX.double().mean()))
        surplus = VAE_TEMPORAL_STRIDE - 1
        frames_per_block = VAE_TEMPORAL_STRIDE * num_latent_frames
        first = block * frames_per_block - surplus if block else 0
        following = (block + 1) * frames_per_block - surplus
        size_px = (height * LATENT_STRIDE_PX, width * LATENT_STRIDE_PX)
        return paint_frame_numbers(range(first, following), size_px), DecodeState(())


class RehearsedPart:
    """Stands for a part of a decoder that is not the last: hands over the latents."""

    def __init__(self, decode_s: float) -> None:
        """``decode_s``: seconds that each call takes."""
        self._decode_s = decode_s

    def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        """The same latents, and an empty state."""
        time.sleep(self._decode_s)
        return latents_FCYX, DecodeState(())


class RehearsedPrompt:
    """Stands for the text encoder."""

    module = None

    def __init__(self, text_dim: int) -> None:
        self._text_dim = text_dim

    def embed(self, prompt: str) -> Tensor:
        """One row of zeros [1, text_dim], whatever the prompt says."""
        return torch.zeros(1, self._text_dim)


class Faults:
    """The failures ordered of this process. Each strikes once, but for ``RAISE``: what is wrong with a block is wrong
    again when its pass is run apart from others."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._armed = list(faults)

    def before_pass(self, stage: int, block: int, seed: int) -> None:
        """Fail now if that is ordered for this denoise pass: hang, exit with status 3, or raise.

        Raises:
            torch.OutOfMemoryError: an ``OUT_OF_MEMORY`` fault struck.
            ZeroDivisionError: a ``RAISE`` fault struck, for what nobody foresees.
        """
        if self._strikes(FaultKind.OUT_OF_MEMORY, stage, block, seed):
            raise torch.OutOfMemoryError("rehearsed")
        if self._strikes(FaultKind.RAISE, stage, block, seed):
            raise ZeroDivisionError("rehearsed")
        if self._strikes(FaultKind.EXIT, stage, block, seed):
            os._exit(EXIT_STATUS)
        if self._strikes(FaultKind.HANG, stage, block, seed):
            while True:
                time.sleep(NAP_S)

    def spoils(self, stage: int, block: int, seed: int) -> bool:
        """Whether this denoise pass shall come out as NaN."""
        return self._strikes(FaultKind.NAN, stage, block, seed)

    def _strikes(self, kind: FaultKind, stage: int, block: int, seed: int) -> bool:
        fault = Fault(kind=kind, stage=stage, block=block, seed=seed)
        if fault not in self._armed:
            return False
        if kind is not FaultKind.RAISE:
            self._armed.remove(fault)
        return True


def paint_frame_numbers(numbers: range, size_px: tuple[int, int]) -> Tensor:
    """Paint each number as 16 upright bars over the whole picture, most significant bit at the left, white for 1.

    Bars span the height, so that a video encoder cannot blur them away. ``size_px`` is (height, width), at least 16
    wide. Returns float32 RGB [T, 3, height, width] of zeros and ones.
    """
    height_px, width_px = size_px
    numbers_T1 = torch.tensor(numbers, dtype=torch.int64)[:, None]
    bits_TB = numbers_T1 >> torch.arange(NUM_BARS - 1, -1, -1) & 1
    bar_of_column_W = torch.arange(width_px) * NUM_BARS // width_px
    rows_TW = bits_TB[:, bar_of_column_W].float()
    return rows_TW[:, None, None, :].expand(-1, RGB, height_px, -1)
