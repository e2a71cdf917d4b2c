"""Pictures and clips that videos start from: encoded on a thread of their own, beside the passes of other videos.

One question after the other, in the order in which they came. What goes wrong concerns the video that asked and no
other. Knows no video.

Letters: T frames, C channels, H and W height and width in pixels, F latent frames of a block.
"""

import logging
import os
import queue
import threading
import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.errors import VideoFailed
from engine.law.schedule import first_latent_frame, frames_before_block, start_blocks
from engine.messages import EncodePixels, PixelsEncoded, PixelsFailed
from engine.model.confined import confined
from engine.model.encoder import Encoder
from engine.model.tensor_bytes import to_bytes
from engine.request import Pixels

logger = logging.getLogger(__name__)

Send = Callable[[PixelsEncoded | PixelsFailed], None]


class PictureEncoding:
    """Answers ``EncodePixels``."""

    def __init__(self, encoder: Encoder, rollout: RolloutConfig, device: torch.device, send: Send) -> None:
        """Start the thread. ``device`` is the encoder's; ``send`` must be thread-safe."""
        self._encoder, self._rollout, self._device, self._send = encoder, rollout, device, send
        self._questions: queue.SimpleQueue[EncodePixels] = queue.SimpleQueue()
        threading.Thread(target=self._answer_in_turn, name="pictures", daemon=True).start()

    def ask(self, question: EncodePixels) -> None:
        """Take a question; never waits."""
        self._questions.put(question)

    def _answer_in_turn(self) -> None:
        try:
            with torch.inference_mode():
                while True:
                    self._send(self._answer(self._questions.get()))
        finally:  # only what is not about one picture leads here; a dead worker is seen at once, a silent one is not
            traceback.print_exc()
            os._exit(1)

    def _answer(self, question: EncodePixels) -> PixelsEncoded | PixelsFailed:
        try:
            with confined("encoding the picture", self._device):
                pixels_TCHW = opening_pixels(self._rollout, question.pixels).to(self._device)
                latents = self._encoder.encode(pixels_TCHW.float() / 255)
                blocks = tuple(to_bytes(block) for block in split_blocks(self._rollout, latents))
        except VideoFailed as failure:
            logger.error("a picture was not encoded: %s", failure.message, exc_info=failure.__cause__)
            return PixelsFailed(request=question.request, code=failure.code, message=failure.message)
        return PixelsEncoded(request=question.request, blocks=blocks)


def opening_pixels(rollout: RolloutConfig, pixels: Pixels) -> Tensor:
    """The frames of whole blocks, [T, 3, H, W], a byte a value: the last there are, or the first one again and again
    in front of too few."""
    shape = pixels.num_frames, pixels.height_px, pixels.width_px, 3
    frames_THWC = torch.frombuffer(bytearray(pixels.data), dtype=torch.uint8).view(shape)
    needed = frames_before_block(rollout, start_blocks(rollout, pixels.num_frames))
    missing = max(0, needed - pixels.num_frames)
    before_THWC = frames_THWC[:1].expand(missing, -1, -1, -1)
    return torch.cat([before_THWC, frames_THWC[pixels.num_frames - needed + missing :]]).movedim(-1, 1)


def split_blocks(rollout: RolloutConfig, latents_TCYX: Tensor) -> list[Tensor]:
    """The latents of a video's beginning by block, [F, C, Y, X] each."""
    blocks, block = [], 0
    while (begin := first_latent_frame(rollout, block)) < len(latents_TCYX):
        blocks.append(latents_TCYX[begin : first_latent_frame(rollout, block + 1)])
        block += 1
    return blocks
