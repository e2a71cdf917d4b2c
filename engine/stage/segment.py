"""A segment: one pass of one block in one stage. A forward runs a batch of them (design, law 5).

A denoise pass predicts the clean block; a cache pass writes the block's page at the next noise level. Both read pages.
A segment goes this way: chosen, placed (its page is claimed), and after the forward settled, or undone if the forward
failed. Imports no torch.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.law.schedule import Level
from engine.messages import BlockTicket
from engine.stage.denoise import DenoiseStage, StageVideo
from engine.trace import Phase, Timer

if TYPE_CHECKING:
    from torch import Tensor

    from engine.model.segments import TextContext
    from engine.stage.pages import Seen, VideoPages


@dataclass(frozen=True, eq=False)
class Segment:
    """A denoise pass, if it executes a ticket, else a cache pass. Two segments are equal only if they are one."""

    stage: DenoiseStage
    video: StageVideo
    """Of the stage."""
    block: int
    num_latent_frames: int
    """Of the block."""
    latents_FCYX: "Tensor | None"
    """The block at ``level``; None for initial noise that is not drawn yet."""
    level: Level
    context: "TextContext"
    """The prompt at the block's denoise pass, also for its cache pass, which may run after a prompt change."""
    pages: "VideoPages"
    """Where the pages lie that it attends to: the video's own ones in the stage that writes them."""
    ticket: BlockTicket | None = None
    """What a denoise pass executes: the head of the stage's queue, until it is settled."""
    attended: "tuple[Seen, ...]" = ()
    """What it attends to besides itself, oldest first; set when it is placed."""
    write_page: int | None = None
    """The page that a cache pass writes; set when it is placed."""

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """F, C, Y, X of the block."""
        return self.num_latent_frames, *self.video.latent_size

    def placed(self) -> "Segment":
        """This segment with the pages it reads and writes; a cache pass claims its page."""
        # The claim comes first: it tells a restored video which blocks it skipped.
        write_page = self.pages.claim(self.block) if self.ticket is None else None
        return replace(self, write_page=write_page, attended=self.pages.attended(self.block))

    def settle(self) -> None:
        """The forward ran: the page is written and the one that left the window is free, or the ticket is executed."""
        if self.ticket is None:
            self.pages.evict_after(self.block)
            self.video.num_cached, self.video.due = self.block + 1, None
        else:
            self.stage.arrivals.popleft()

    def undo(self) -> None:
        """The forward did not run: what was claimed is free. The pass stays due, or its ticket at the head."""
        if self.ticket is None:
            self.pages.unclaim(self.block)


def names_in(segments: Iterable[Segment]) -> set[str]:
    """Videos that take part."""
    return {segment.video.name for segment in segments}


def record(segments: Iterable[Segment], timer: Timer, began_s: float) -> None:
    """Note that the passes began then, in seconds of the monotonic clock, and ended now."""
    ended_s = time.monotonic()
    for segment in segments:
        phase = Phase.CACHE if segment.ticket is None else Phase.DENOISE
        name, stage = segment.video.name, segment.stage.index
        timer.add(phase, name, segment.block, began_s, stage=stage, ended_s=ended_s)
