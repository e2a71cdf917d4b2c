"""A decode stage with a decoder and encoders that tests can hold up and break."""

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.media.decode import DecodeStage, Encoder
from engine.media.encoder import BlockEncoder
from engine.messages import BlockTicket, OpenTicket, RestoreTicket
from engine.model.decode_state import DecodeState
from engine.model.tensor_bytes import to_bytes
from engine.request import Output, Quality
from engine.trace import Timer

FPS = 16
SIDE_PX = 64
PATIENCE_S = 5.0
"""Longer than anything here takes, so that only a lost message runs into it."""
GREY_PER_BLOCK = 0.01


class GreyDecoder:
    """A picture is as bright as its latents; its state counts latent frames, as a streaming decoder's does."""

    def __init__(self) -> None:
        self.blocks: list[float] = []
        self.seen: list[int] = []
        self.fails: Exception | None = None

    def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
        if self.fails is not None:
            raise self.fails
        grey = float(latents_FCYX.mean())
        self.blocks.append(grey)
        seen = 0 if state is None else int(state.caches[0])
        self.seen.append(seen)
        num_frames = 4 * len(latents_FCYX) - (3 if state is None else 0)
        pixels_TCYX = torch.full((num_frames, 3, SIDE_PX, SIDE_PX), grey * GREY_PER_BLOCK)
        return pixels_TCYX, DecodeState((torch.tensor(seen + len(latents_FCYX)),))


class SlowEncoder:
    """Waits for its gate before each block; its fragments tell how many frames it got."""

    def __init__(self, ticket: OpenTicket) -> None:
        self.init_segment, self.codecs = f"init {ticket.video}".encode(), "avc1.64000a"
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.num_frames: list[int] = []
        self.closed = False
        self.fails: Exception | None = None

    def encode_block(self, yuv_TPW: Tensor) -> bytes:
        assert not self.closed, "a block came after the close"
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        if self.fails is not None:
            raise self.fails
        self.num_frames.append(len(yuv_TPW))
        return f"{len(yuv_TPW)} frames".encode()

    def close(self) -> None:
        self.closed = True


class Bench:
    """A decode stage whose messages are collected in the order in which they came."""

    def __init__(self, open_encoder: Callable[[OpenTicket], Encoder] | None = None) -> None:
        self.decoder, self.timer = GreyDecoder(), Timer(rank=3)
        self.encoders: dict[str, SlowEncoder] = {}
        self.messages: queue.Queue[object] = queue.Queue()
        self.stage = DecodeStage(self.decoder, open_encoder or self._open_encoder, self.messages.put, self.timer)

    def _open_encoder(self, ticket: OpenTicket) -> SlowEncoder:
        self.encoders[ticket.video] = SlowEncoder(ticket)
        return self.encoders[ticket.video]

    def open(self, video: str, *, output: Output = Output.FRAGMENTS, first_block: int = 0, from_block: int = 0) -> None:
        self.stage.open(
            OpenTicket(
                video=video,
                seed=0,
                latent_height=SIDE_PX // 8,
                latent_width=SIDE_PX // 8,
                fps=FPS,
                quality=Quality.STANDARD,
                output=output,
                embedding=to_bytes(torch.zeros(1, 4)),
                first_sequence=from_block + 1,
                from_frame=max(0, 12 * from_block - 3),
                first_block=first_block,
            )
        )

    def block(self, video: str, block: int, *, num_frames: int | None = None, value: float | None = None) -> None:
        frames = num_frames or (12 if block else 9)
        ticket = BlockTicket(video=video, block=block, num_frames=frames, last=False)
        self.stage.finish_block(ticket, latents(block if value is None else value))

    def restore(self, video: str, block: int, value: float | None = None) -> None:
        ticket = RestoreTicket(video=video, block=block, latents=())
        self.stage.restore(ticket, latents(block if value is None else value), torch.device("cpu"))

    def take(self) -> object:
        return self.messages.get(timeout=PATIENCE_S)

    def close(self, video: str) -> list[object]:
        """Close the video and return every message that came until then."""
        closed = object()
        self.stage.close(video, lambda: self.messages.put(closed))
        return list(iter(self.take, closed))


def latents(value: float) -> Tensor:
    return torch.full((3, 4, SIDE_PX // 8, SIDE_PX // 8), float(value))


def named(messages: list[object]) -> list[str]:
    """The messages as words: what each is, and of which block."""
    return [f"{type(message).__name__} {getattr(message, 'block', '')}".strip() for message in messages]


class NoisyEncoder(BlockEncoder):
    """The real one, and pictures that reach the bound of its rate: the same ones for a video, from its first frame."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._noise = np.random.default_rng(settings["first_sequence"])

    def encode_block(self, yuv_TPW: Tensor | npt.NDArray[np.uint8]) -> bytes:
        return super().encode_block(self._noise.integers(0, 256, tuple(yuv_TPW.shape), np.uint8))


def noisy_encoder(ticket: OpenTicket) -> BlockEncoder:
    return NoisyEncoder(
        SIDE_PX, SIDE_PX, FPS, ticket.quality, first_frame=ticket.from_frame, first_sequence=ticket.first_sequence
    )


def real_encoder(ticket: OpenTicket) -> BlockEncoder:
    return BlockEncoder(
        SIDE_PX, SIDE_PX, FPS, ticket.quality, first_frame=ticket.from_frame, first_sequence=ticket.first_sequence
    )
