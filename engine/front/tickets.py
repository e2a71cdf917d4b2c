"""Tickets as the dispatcher writes them, and the way they go. Decides nothing."""

from typing import Protocol

from engine.config import LATENT_STRIDE_PX
from engine.front.session import Session
from engine.law.schedule import frames_before_block
from engine.messages import BlockTicket, Cancel, EncodePrompt, OpenTicket, TensorBytes, Ticket


class Workers(Protocol):
    """The way to the workers."""

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """To every worker of a chain."""
        ...

    def ask(self, question: EncodePrompt) -> None:
        """To the one that embeds text."""
        ...


def open_ticket(session: Session, embedding: TensorBytes) -> OpenTicket:
    """A session begins, or begins again behind what its reader has."""
    request, progress = session.request, session.progress
    return OpenTicket(
        session=session.id,
        seed=request.seed,
        latent_height=request.height_px // LATENT_STRIDE_PX,
        latent_width=request.width_px // LATENT_STRIDE_PX,
        fps=request.fps,
        quality=request.quality,
        output=request.output,
        embedding=embedding,
        first_block=progress.done,
        first_frame=frames_before_block(progress.rollout, progress.done),
    )


def block_ticket(session: Session, block: int, *, save: bool) -> BlockTicket:
    """Generate a block. ``save``: keep what its cache passes read."""
    progress = session.progress
    return BlockTicket(
        session=session.id,
        block=block,
        num_frames=progress.shown_frames(block),
        last=block + 1 == progress.num_blocks,
        save=save,
    )
