"""The decode stage: from the finished latents of each block to one encoded fragment, or to the latents themselves.

Keeps the decoder's streaming state and the encoder of each session. Knows nothing of denoising; the encoder is given
from outside, so that a machine without one can still decode.

Letters: F latent frames of a block, T frames, C channels, Y and X latent height and width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import CorruptLatents
from engine.messages import BlockDone, BlockTicket, InitReady, OpenTicket, SessionBroken
from engine.model.decoder import Decoder, DecodeState
from engine.model.tensor_bytes import to_bytes
from engine.request import Output
from kernels.yuv import rgb_to_yuv420p


class Encoder(Protocol):
    """What turns pictures of one session into fragments."""

    @property
    def init_segment(self) -> bytes:
        """``ftyp`` and ``moov``, known before the first frame."""
        ...

    @property
    def codecs(self) -> str:
        """RFC 6381 codecs string."""
        ...

    def encode_block(self, yuv_TPX: Tensor) -> bytes:
        """One ``moof`` and ``mdat`` from planar 4:2:0 frames."""
        ...

    def close(self) -> None:
        """Release the codec."""
        ...


OpenEncoder = Callable[[OpenTicket], Encoder]
Emit = Callable[[InitReady | BlockDone | SessionBroken], None]


@dataclass
class DecodeSession:
    """What the decode stage keeps of one session."""

    output: Output
    encoder: Encoder | None
    state: DecodeState | None = None
    broken: bool = False


class DecodeStage:
    """The last link of the chain."""

    def __init__(self, decoder: Decoder | None, open_encoder: OpenEncoder, emit: Emit) -> None:
        """``decoder`` may be None when every session asks for latents."""
        self._decoder, self._open_encoder, self._emit = decoder, open_encoder, emit
        self._sessions: dict[str, DecodeSession] = {}

    def open(self, ticket: OpenTicket) -> None:
        """A session begins: its init segment is ready at once."""
        if ticket.output == Output.LATENTS:
            self._sessions[ticket.session] = DecodeSession(ticket.output, None)
            return
        encoder = self._open_encoder(ticket)
        self._sessions[ticket.session] = DecodeSession(ticket.output, encoder)
        self._emit(InitReady(session=ticket.session, data=encoder.init_segment, codecs=encoder.codecs))

    def finish_block(self, ticket: BlockTicket, latents_FCYX: Tensor) -> None:
        """Decode, encode and emit a block. NaN or infinity breaks the session instead."""
        session = self._sessions[ticket.session]
        if session.broken:
            return
        if not bool(torch.isfinite(latents_FCYX).all()):
            session.broken = True
            message = f"block {ticket.block} came out as NaN or infinity"
            self._emit(SessionBroken(session=ticket.session, code=CorruptLatents.code, message=message))
            return
        if session.encoder is None:
            self._emit_latents(ticket, latents_FCYX)
        else:
            self._emit_fragment(ticket, latents_FCYX, session, session.encoder)

    def close(self, session: str) -> None:
        """The session ends: drop its state."""
        encoder = self._sessions.pop(session).encoder
        if encoder is not None:
            encoder.close()

    def _emit_latents(self, ticket: BlockTicket, latents_FCYX: Tensor) -> None:
        self._emit(
            BlockDone(
                session=ticket.session,
                block=ticket.block,
                num_frames=ticket.num_frames,
                data=b"",
                latents=to_bytes(latents_FCYX),
                decode_s=0.0,
                encode_s=0.0,
            )
        )

    def _emit_fragment(
        self, ticket: BlockTicket, latents_FCYX: Tensor, session: DecodeSession, encoder: Encoder
    ) -> None:
        assert self._decoder is not None, "a session asked for pictures and the model has no decoder"
        began = time.monotonic()
        pixels_TCYX, session.state = self._decoder.decode(latents_FCYX, session.state)
        yuv_TPX = rgb_to_yuv420p(pixels_TCYX[: ticket.num_frames]).cpu()
        decoded = time.monotonic()
        data = encoder.encode_block(yuv_TPX)
        self._emit(
            BlockDone(
                session=ticket.session,
                block=ticket.block,
                num_frames=ticket.num_frames,
                data=data,
                latents=None,
                decode_s=decoded - began,
                encode_s=time.monotonic() - decoded,
            )
        )
