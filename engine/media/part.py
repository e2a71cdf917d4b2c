"""A decode stage that is not the last: from latents or activations to the activations that the next one takes.

Keeps its part of the decoder's streaming state of each video. Knows no pictures, no encoder and no neighbour.

Letters: T frames of a block (latent frames at the first part), C channels, Y and X height and width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import VideoFailed
from engine.media.decode import require_finite
from engine.messages import OpenTicket, VideoBroken
from engine.model.confined import confined, log_end
from engine.model.decoder import Decoder, DecodeState
from engine.request import Output
from engine.trace import Phase, Timer


@dataclass(eq=False)
class PartVideo:
    """What the stage keeps of one video."""

    output: Output
    state: DecodeState | None = None
    given_up: bool = False


class PartStage:
    """``decode[v]`` of a chain, ahead of the one that makes pictures. For one thread."""

    def __init__(self, part: Decoder, emit: Callable[[VideoBroken], None], timer: Timer) -> None:
        self._part, self._emit, self._timer = part, emit, timer
        self._videos: dict[str, PartVideo] = {}

    def open(self, ticket: OpenTicket) -> None:
        """A video begins."""
        self._videos[ticket.video] = PartVideo(ticket.output)

    def push(self, name: str, block: int, x_TCYX: Tensor) -> Tensor | None:
        """Push a block of a video through this part; None of a video that broke, now or before.

        Latents that were asked for as such pass as they are.
        """
        video = self._videos[name]
        if video.given_up or video.output == Output.LATENTS:
            return None if video.given_up else x_TCYX
        try:
            with confined(f"decoding block {block}", x_TCYX.device):
                return self._decode(video, name, block, x_TCYX)
        except VideoFailed as failure:
            video.given_up, video.state = True, None
            log_end(name, failure)
            self._emit(VideoBroken(video=name, code=failure.code, message=failure.message))
            return None

    def close(self, name: str) -> None:
        """The video ends."""
        del self._videos[name]

    def _decode(self, video: PartVideo, name: str, block: int, x_TCYX: Tensor) -> Tensor:
        require_finite(x_TCYX, block)
        began_s = time.monotonic()
        out_TCYX, video.state = self._part.decode(x_TCYX, video.state)
        if out_TCYX.is_cuda:
            torch.cuda.current_stream().synchronize()  # what fails is this video's, and the time is the device's
        self._timer.add(Phase.DECODE, name, block, began_s)
        return out_TCYX
