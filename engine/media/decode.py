"""The decode stage: from the finished latents of each block to one encoded fragment, or to the latents themselves.

Decoding runs on the caller's thread and encoding on one of its own, so that denoise passes and decoding go on while the
video encoder works. Keeps the decoder's streaming state and the encoder of each video. Knows nothing of denoising;
the encoder is given from outside, so that a machine without one can still decode.

Letters: F latent frames of a block, T frames, C channels, Y and X latent height and width, P rows of the planes of a
picture and W its width, in pixels.
"""

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import CorruptLatents, VideoFailed
from engine.messages import (
    BlockDone,
    BlockRepeated,
    BlockTicket,
    InitReady,
    OpenTicket,
    RestoreTicket,
    VideoBroken,
)
from engine.model.confined import confined, log_end
from engine.model.decoder import Decoder, DecodeState
from engine.model.tensor_bytes import to_bytes
from engine.request import Output
from engine.trace import Phase, Timer
from kernels.yuv.formula import rgb_to_yuv420p

MAX_WAITING_JOBS = 8
"""Blocks that may wait for the encoder before decoding waits too: memory stays bounded when the encoder is slower."""


HOST = torch.device("cpu")
"""Where the encoder works."""


class Encoder(Protocol):
    """What makes fragments of one video's pictures. Used and closed on the encoder's thread."""

    @property
    def init_segment(self) -> bytes:
        """``ftyp`` and ``moov``, known before the first frame."""
        ...

    @property
    def codecs(self) -> str:
        """RFC 6381 codecs string."""
        ...

    def encode_block(self, yuv_TPW: Tensor) -> bytes:
        """One ``moof`` and ``mdat`` from planar 4:2:0 frames. Raises ``VideoFailed`` if the codec gives up."""
        ...

    def close(self) -> None:
        """Release the codec."""
        ...


OpenEncoder = Callable[[OpenTicket], Encoder]
"""May raise ``VideoFailed``."""
Emit = Callable[[InitReady | BlockDone | BlockRepeated | VideoBroken], None]
Job = Callable[[], None]
Answer = Callable[[], BlockDone | BlockRepeated]
"""May raise ``VideoFailed``, and nothing else."""


@dataclass(eq=False)
class DecodeVideo:
    """What the decode stage keeps of one video."""

    name: str
    output: Output
    first_block: int
    encoder: Encoder | None = None
    state: DecodeState | None = None
    given_up: bool = False
    """No further block is decoded. Written by the thread that decodes."""
    broken: bool = False
    """Written where the video's jobs run, so that blocks before the failure still come out."""


class DecodeStage:
    """The last stage of the chain. Its methods belong to one thread; the encoder's thread is its own."""

    def __init__(self, decoder: Decoder | None, open_encoder: OpenEncoder, emit: Emit, timer: Timer) -> None:
        """Start the encoder's thread.

        Args:
            decoder: may be None when every video asks for latents.
            open_encoder: opens the encoder of a video, at the ticket's first frame.
            emit: takes the messages, from the caller's thread and from the encoder's: it must be thread-safe. A
                video's messages come one at a time and in order.
            timer: records decoding and encoding.
        """
        self._decoder, self._open_encoder, self._emit, self._timer = decoder, open_encoder, emit, timer
        self._videos: dict[str, DecodeVideo] = {}
        self._jobs: queue.Queue[Job] = queue.Queue(MAX_WAITING_JOBS)
        threading.Thread(target=self._run_jobs, name="encoder", daemon=True).start()

    def open(self, ticket: OpenTicket) -> None:
        """A video begins: its init segment is ready at once. An encoder that does not open breaks the video."""
        video = DecodeVideo(ticket.video, ticket.output, ticket.first_block)
        self._videos[ticket.video] = video
        if ticket.output == Output.LATENTS:
            return
        try:
            with confined("opening the encoder", HOST):
                video.encoder = self._open_encoder(ticket)
        except VideoFailed as failure:
            self._fail(video, failure)
            return
        init = InitReady(video=ticket.video, data=video.encoder.init_segment, codecs=video.encoder.codecs)
        self._emit(init)

    def finish_block(self, ticket: BlockTicket, latents_FCYX: Tensor) -> None:
        """Decode a block and leave it to the encoder; wait while too many blocks wait there.

        Blocks that are in the log already advance the decoder and the encoder, and their fragments are dropped. NaN or
        infinity, a device without memory for the decoder, a failing encoder, or what nobody foresaw break the video,
        and its later blocks are dropped.
        """
        video = self._videos[ticket.video]
        if video.given_up or video.broken:
            return
        try:
            with confined(f"decoding block {ticket.block}", latents_FCYX.device):
                answer = self._prepare(video, ticket, latents_FCYX)
        except VideoFailed as failure:
            self._give_up(video, failure)
            return
        self._in_order(video, partial(self._reply, video, answer))

    def restore(self, ticket: RestoreTicket, latents_FCYX: Tensor, device: torch.device) -> None:
        """Advance the decoder over a block that nobody will see. Emits nothing, unless it breaks the video.

        Args:
            ticket: names the block.
            latents_FCYX: the finished block, on any device.
            device: where the decoder is.
        """
        video = self._videos[ticket.video]
        if video.given_up or video.broken or video.output == Output.LATENTS:
            return
        try:
            with confined(f"decoding block {ticket.block}", device):
                self._decode(video, ticket.block, latents_FCYX.to(device))
        except VideoFailed as failure:
            self._give_up(video, failure)

    def close(self, video: str, done: Job) -> None:
        """The video ends: drop its encoder once everything of it is emitted, and then call ``done``.

        ``done`` runs on the encoder's thread, or before this returns if the video has no encoder.
        """
        closing = self._videos.pop(video)
        closing.state = None  # here: the encoder's thread has no part in the device's memory
        self._in_order(closing, partial(_close_encoder, closing, done))

    # --- on the caller's thread ---

    def _prepare(self, video: DecodeVideo, ticket: BlockTicket, latents_FCYX: Tensor) -> Answer:
        """Do what a block needs before the encoder; the rest is the answer. Raises whatever goes wrong."""
        repeated = ticket.block < video.first_block
        if video.output == Output.LATENTS:
            require_finite(latents_FCYX, ticket.block)
            return partial(_repeat, ticket) if repeated else partial(_pass_latents, ticket, latents_FCYX)
        yuv_TPW, decode_s = self._decode(video, ticket.block, latents_FCYX)
        num_frames = len(yuv_TPW)
        end = ticket.num_skipped + ticket.num_frames
        assert num_frames >= end, f"block {ticket.block} has {num_frames} of {end} frames"
        assert video.encoder is not None, "an open video that is not broken has its encoder"
        if repeated and ticket.num_frames == 0:
            return partial(_repeat, ticket)  # of what the video continues, which had an encoder of its own
        answer = self._encode_again if repeated else partial(self._encode, decode_s=decode_s)
        return partial(answer, video.encoder, ticket, yuv_TPW[ticket.num_skipped : end])

    def _decode(self, video: DecodeVideo, block: int, latents_FCYX: Tensor) -> tuple[Tensor, float]:
        """Return all frames of a block on the host and the seconds it took.

        Pictures that nobody will see come to the host as well: without the copy a GPU would still be at work when the
        time is taken.
        """
        assert self._decoder is not None, "a video asked for pictures and the model has no decoder"
        require_finite(latents_FCYX, block)
        began_s = time.monotonic()
        pixels_TCYX, video.state = self._decoder.decode(latents_FCYX, video.state)
        yuv_TPW = rgb_to_yuv420p(pixels_TCYX).cpu()
        self._timer.add(Phase.DECODE, video.name, block, began_s)
        return yuv_TPW, time.monotonic() - began_s

    def _give_up(self, video: DecodeVideo, failure: VideoFailed) -> None:
        """Decode no more of the video, let go of its history, and say so behind its earlier blocks.

        The failure itself does not wait there: it holds what the decoder had allocated when it failed.
        """
        video.given_up, video.state = True, None
        log_end(video.name, failure)
        self._in_order(video, partial(self._break, video, failure.code, failure.message))

    def _in_order(self, video: DecodeVideo, job: Job) -> None:
        """Run a job after the video's earlier ones: behind the encoder, or here if the video has none."""
        if video.encoder is None:
            job()
        else:
            began_s = time.monotonic()
            self._jobs.put(job)
            self._timer.rest(output_s=time.monotonic() - began_s)

    # --- in the video's order ---

    def _reply(self, video: DecodeVideo, answer: Answer) -> None:
        """Make the answer and emit it, unless the video broke before."""
        if video.broken:
            return
        try:
            message = answer()
        except VideoFailed as failure:
            self._fail(video, failure)
            return
        self._emit(message)

    def _fail(self, video: DecodeVideo, failure: VideoFailed) -> None:
        log_end(video.name, failure)
        self._break(video, failure.code, failure.message)

    def _break(self, video: DecodeVideo, code: str, message: str) -> None:
        """Give up on the video; it says so once."""
        if video.broken:
            return
        video.broken = True
        self._emit(VideoBroken(video=video.name, code=code, message=message))

    # --- on the encoder's thread ---

    def _run_jobs(self) -> None:
        try:
            while True:
                self._jobs.get()()
        finally:
            # Only what is not about one video leads here, as a pipe that is gone. A worker without this thread would
            # take blocks until the queue is full and then hang without a word; a dead one is seen at once and replaced.
            traceback.print_exc()
            os._exit(1)

    def _encode_again(self, encoder: Encoder, ticket: BlockTicket, yuv_TPW: Tensor) -> BlockRepeated:
        """Only so that the encoder has seen the block: what it spends on later ones depends on it."""
        self._encode(encoder, ticket, yuv_TPW, decode_s=0.0)
        return _repeat(ticket)

    def _encode(self, encoder: Encoder, ticket: BlockTicket, yuv_TPW: Tensor, decode_s: float) -> BlockDone:
        began_s = time.monotonic()
        with confined(f"encoding block {ticket.block}", HOST):
            data = encoder.encode_block(yuv_TPW)
        self._timer.add(Phase.ENCODE, ticket.video, ticket.block, began_s)
        return BlockDone(
            video=ticket.video,
            block=ticket.block,
            num_frames=ticket.num_frames,
            data=data,
            latents=None,
            decode_s=decode_s,
            encode_s=time.monotonic() - began_s,
        )


def _pass_latents(ticket: BlockTicket, latents_FCYX: Tensor) -> BlockDone:
    with confined(f"copying block {ticket.block}", latents_FCYX.device):
        latents = to_bytes(latents_FCYX)
    return BlockDone(
        video=ticket.video,
        block=ticket.block,
        num_frames=ticket.num_frames,
        data=b"",
        latents=latents,
        decode_s=0.0,
        encode_s=0.0,
    )


def _repeat(ticket: BlockTicket) -> BlockRepeated:
    return BlockRepeated(video=ticket.video, block=ticket.block)


def _close_encoder(video: DecodeVideo, done: Job) -> None:
    try:
        with confined("closing the encoder", HOST):
            if video.encoder is not None:
                video.encoder.close()
    except VideoFailed as failure:
        log_end(video.name, failure)  # all of the video is out by now
    done()


def require_finite(latents_FCYX: Tensor, block: int) -> None:
    """Raise ``CorruptLatents`` for a block with NaN or infinity."""
    if not bool(torch.isfinite(latents_FCYX).all()):
        raise CorruptLatents(f"block {block} came out as NaN or infinity")
