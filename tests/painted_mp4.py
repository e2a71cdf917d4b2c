"""Fragmented MP4 as the workers make it, without a worker: the real encoder, and pictures that show their number."""

import numpy as np

from engine.config import LATENT_STRIDE_PX
from engine.media.encoder import BlockEncoder
from engine.messages import OpenTicket
from engine.request import Quality
from engine.stage.rehearsal import NUM_BARS
from tests.small_mp4 import SmallMedia


class PaintedMedia(SmallMedia):
    """For ``Behaviour.media``. ``tests.media.painted.frame_numbers`` reads the numbers."""

    def __init__(self, opened: OpenTicket) -> None:
        super().__init__(opened)
        self._width_px = opened.latent_width * LATENT_STRIDE_PX
        self._height_px = opened.latent_height * LATENT_STRIDE_PX
        self._encoder = BlockEncoder(
            self._width_px,
            self._height_px,
            opened.fps,
            Quality.DRAFT,
            first_frame=opened.from_frame,
            first_sequence=opened.first_sequence,
        )
        self.init_segment, self.codecs = self._encoder.init_segment, self._encoder.codecs

    def fragment(self, block: int, num_frames: int, start_frame: int, payload: bytes) -> bytes:
        return self._encoder.encode_block(np.stack([self._paint(start_frame + frame) for frame in range(num_frames)]))

    def _paint(self, number: int) -> np.ndarray:
        """I420 planes: the number in binary, as bright and dark bars."""
        bits = np.array([number >> bit & 1 for bit in reversed(range(NUM_BARS))], dtype=np.uint8)
        row = 40 + 170 * bits[np.arange(self._width_px) * NUM_BARS // self._width_px]
        luma = np.tile(row, (self._height_px, 1))
        return np.concatenate([luma, np.full((self._height_px // 2, self._width_px), 128, np.uint8)])
