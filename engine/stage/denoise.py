"""One denoise stage: the tickets that wait in front of it and what it keeps of each session.

Holds state and answers whether a pass may run; the runner decides which passes share a forward, and the law
(``engine.law.schedule``) decides what they compute.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width.
"""

from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from engine.messages import BlockTicket, RestoreTicket, Ticket
from engine.model.segments import TextContext
from engine.stage.pages import SessionPages


@dataclass(frozen=True)
class Arrival:
    """A ticket in front of a stage, with what travels along."""

    ticket: Ticket
    latents_FCYX: Tensor | None = None
    """For a block ticket behind the first stage: the block at the stage's input level."""
    context: TextContext | None = None
    """For an open or prompt ticket: the prompt's keys and values."""


@dataclass(frozen=True)
class CachePass:
    """A cache pass that is due: everything the denoise pass before it already settled."""

    session: str
    block: int
    latents_FCYX: Tensor
    context: TextContext


@dataclass
class StageSession:
    """What a stage keeps of one session."""

    seed: int
    latent_shape: tuple[int, int, int, int]
    """F, C, Y, X of a block."""
    context: TextContext
    pages: SessionPages
    """Empty for ever in a stage that writes no pages."""
    num_cached: int = 0
    """The block after the last one whose page is written."""
    due: CachePass | None = None


@dataclass
class DenoiseStage:
    """Stage ``index`` of the chain."""

    index: int
    arrivals: deque[Arrival] = field(default_factory=deque)
    sessions: dict[str, StageSession] = field(default_factory=dict)

    def waiting_block(self) -> tuple[BlockTicket, Arrival] | None:
        """The block ticket at the head of the queue, if that is what stands there."""
        if self.arrivals and isinstance(self.arrivals[0].ticket, BlockTicket):
            return self.arrivals[0].ticket, self.arrivals[0]
        return None

    def awaited_pass(self) -> CachePass | None:
        """The cache pass that a restore ticket at the head of the queue waits for."""
        if self.arrivals and isinstance(self.arrivals[0].ticket, RestoreTicket):
            return self.sessions[self.arrivals[0].ticket.session].due
        return None

    def context_is_within_reach(self, session: str, attended: tuple[int, ...]) -> bool:
        """Whether the pages of all these blocks are written, or due and able to join the forward that needs them."""
        state = self.sessions.get(session)
        if state is None:
            return False
        newest = max(attended, default=-1)
        return state.num_cached > newest or (state.due is not None and state.due.block == newest)

    def due_passes(self) -> list[CachePass]:
        """Cache passes nobody has run yet."""
        return [state.due for state in self.sessions.values() if state.due is not None]
