"""One denoise stage: the tickets that wait in front of it and what it keeps of each video.

Holds state; ``engine.stage.choose`` decides what runs next, and the law (``engine.law.schedule``) what it computes.
Imports no torch.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.messages import BlockTicket, ContextTicket, PromptTicket, RestoreTicket, Ticket

if TYPE_CHECKING:
    from torch import Tensor

    from engine.model.segments import TextContext
    from engine.stage.pages import VideoPages
    from engine.stage.segment import Segment


@dataclass(frozen=True, eq=False)
class Arrival:
    """A ticket in front of a stage, with what travels along."""

    ticket: Ticket
    latents_FCYX: "Tensor | None" = None
    """For a block ticket behind the first stage: the block at the stage's input level; clean, if it was given."""
    context: "TextContext | None" = None
    """For an open or prompt ticket: the prompt's keys and values."""


@dataclass(eq=False)
class StageVideo:
    """What a stage keeps of one video."""

    name: str
    seed: int
    latent_size: tuple[int, int, int]
    """C, Y, X."""
    context: "TextContext"
    """The prompt of the next block."""
    pages: "VideoPages"
    """Always empty in a stage that writes no pages."""
    num_cached: int = 0
    """The block after the last one whose page is written."""
    due: "Segment | None" = None
    """The cache pass of the block that was denoised last, until it has run."""
    num_prompts: int = 0
    """How often the prompt changed."""
    read_FCYX: "dict[int, Tensor]" = field(default_factory=dict)
    """What the cache passes of the last window read, by block; empty where none runs again."""

    def close(self) -> None:
        """Give back the pages and let go of what is due."""
        self.pages.release()
        self.read_FCYX.clear()
        self.due = None  # it refers to this record: memory would stay taken until the next garbage collection


@dataclass(eq=False)
class DenoiseStage:
    """Stage ``index`` of the chain."""

    index: int
    re_encodes: bool = False
    """Whether a new prompt has its window encoded again."""
    arrivals: deque[Arrival] = field(default_factory=deque)
    videos: dict[str, StageVideo] = field(default_factory=dict)

    def waiting_block(self) -> tuple[BlockTicket, Arrival] | None:
        """The block ticket at the head of the queue, if that is what stands there."""
        if self.arrivals and isinstance(self.arrivals[0].ticket, BlockTicket):
            return self.arrivals[0].ticket, self.arrivals[0]
        return None

    def awaited_pass(self) -> "Segment | None":
        """The cache pass that the ticket at the head of the queue waits for: one that makes another due, or runs what
        is cached again, with no denoise pass of its own to join.
        """
        if not self.arrivals:
            return None
        match self.arrivals[0].ticket:
            case RestoreTicket(video=video) | ContextTicket(video=video):
                return self.videos[video].due
            case BlockTicket(video=video, given=given) if given is not None:
                return self.videos[video].due
            case PromptTicket(video=video) if self.re_encodes:
                return self.videos[video].due
            case _:
                return None

    def due_passes(self) -> "list[Segment]":
        """Cache passes that have not run yet, by the order in which their videos were opened."""
        return [video.due for video in self.videos.values() if video.due is not None]
