"""Where a video's log lies outside this process, and what comes back from there when the process is another one.

The front tells a ``KeptVideo`` all that opens the video again at a block (design, law 11): the store behind it may be
slower than the video, and says with ``num_stored`` how far it is. Holds interfaces and values only.
"""

from dataclasses import dataclass
from typing import Protocol

from engine.errors import EngineStopped, EngineUnavailable, HiarError
from engine.front.log import InitSegment
from engine.request import EndReason, Fragment, VideoRequest


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A loss of workers, or of the whole server, that a video outlived."""

    block: int
    """The first block that the new workers made."""
    exact: bool
    """Whether the video goes on as if nothing had happened, or merely resembles that."""


class KeptVideo(Protocol):
    """Where one video's log is kept. Called on the event loop, in order; does not block and does not raise.

    A store that cannot write calls ``VideoHandle.fail``; one that has written more, ``VideoHandle.stored``.
    """

    def begun(self, init_segment: InitSegment) -> None:
        """Its init segment is known: before the first block, once in the life of the video."""
        ...

    def prompted(self, block: int, text: str) -> None:
        """It follows a prompt from a block on, until the next. Of several for one block the last one counts."""
        ...

    def added(self, fragment: Fragment) -> None:
        """A block is in the log, the next in number."""
        ...

    def recovered(self, recovery: Recovery) -> None:
        """It goes on with other workers."""
        ...

    def paused(self, is_paused: bool) -> None:
        """It was paused, or is to go on."""
        ...

    def ended(self, outcome: EndReason | HiarError) -> None:
        """It is decided how it ended: nothing is added any more. ``is_interruption`` says if it may be restored.

        Once, and again only if ``VideoHandle.fail`` brings a ``StorageFailed`` before all is stored: that one counts.
        """
        ...

    @property
    def num_stored(self) -> int:
        """First blocks that are still there if every process is killed now. Never falls."""
        ...


@dataclass(frozen=True, kw_only=True)
class PastVideo:
    """What a store knows of a video that had not ended when its server did."""

    id: str
    request: VideoRequest
    model: str
    """Name of the model that made it (``Manifest.name``)."""
    created_at: float
    """Unix time."""
    init_segment: InitSegment | None = None
    fragments: tuple[Fragment, ...] = ()
    """Without a gap, up to the last that is stored. They may begin behind block 0: only readers miss the others."""
    earlier_bytes: int = 0
    """Of the blocks before ``fragments``."""
    prompts: tuple[tuple[int, str], ...] = ()
    """Block and text, in the order in which they were told."""
    recoveries: tuple[Recovery, ...] = ()
    is_paused: bool = False
    """Whether it goes on only when it is resumed."""


def is_interruption(outcome: EndReason | HiarError) -> bool:
    """Whether a video ended only because its server does: it may go on in the next one."""
    return outcome is EndReason.DRAIN or isinstance(outcome, EngineUnavailable | EngineStopped)
