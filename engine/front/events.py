"""What happens to videos, and what is to be done about it: all that goes into the desk and all that comes out."""

from dataclasses import dataclass

from engine.errors import HiarError
from engine.front.pacing import Cursor
from engine.front.video import Video
from engine.law.placement import Plan
from engine.messages import Cancel, ForFront, Question, Ticket
from engine.request import EndReason

# --- events ---


@dataclass(frozen=True)
class Asked:
    """Somebody wants a video; it is refused or queued."""

    video: Video


@dataclass(frozen=True)
class Restored:
    """A video of an earlier life of the server, its log filled; it is queued, however many wait."""

    video: Video
    change: HiarError | None
    """Why it can not go on; None if it can."""
    is_paused: bool
    """Whether it goes on only when it is resumed."""


@dataclass(frozen=True)
class Stored:
    """More of a video's log is stored than before."""

    video: Video


@dataclass(frozen=True)
class Failed:
    """A video cannot go on, for a reason that its workers do not know."""

    video: Video
    error: HiarError


@dataclass(frozen=True)
class PromptAsked:
    """A video is to follow another prompt; answered by ``PromptSet`` or ``PromptRefused`` with this number."""

    video: Video
    text: str
    number: int


@dataclass(frozen=True)
class Joined:
    """Somebody reads a video from the cursor's block on."""

    video: Video
    cursor: Cursor


@dataclass(frozen=True)
class BlockTaken:
    """A reader took its next block."""

    video: Video
    cursor: Cursor


@dataclass(frozen=True)
class Polled:
    """Somebody asks for what there is, again and again, and so reads the video until a while after the last time."""

    video: Video
    block: int | None
    """One that was handed out; None if none was."""
    hold_s: float
    """How long it counts as a reader without asking again."""


@dataclass(frozen=True)
class Left:
    """A reader is gone. The last one ends its video with this reason, unless that lives on without."""

    video: Video
    cursor: Cursor
    reason: EndReason


@dataclass(frozen=True)
class Paused:
    """No more blocks of a video are to be made until it is resumed."""

    video: Video


@dataclass(frozen=True)
class Resumed:
    """A paused video is to go on."""

    video: Video


@dataclass(frozen=True)
class Cancelled:
    """A video is to end at the next block boundary; what was made stays readable."""

    video: Video


@dataclass(frozen=True)
class Stopped:
    """A video is to end at once: blocks under way are not made any more."""

    video: Video
    reason: EndReason


@dataclass(frozen=True)
class Forgotten:
    """A video is to end at once, if it runs, and its id means nothing any more."""

    video: Video


@dataclass(frozen=True)
class Looked:
    """Somebody looks at the numbers: what stands still is counted up to now."""


@dataclass(frozen=True)
class Drained:
    """No more new work: running videos end at a block boundary, queued ones with this refusal."""

    refusal: HiarError


@dataclass(frozen=True)
class GroupServes:
    """Workers are ready, by this plan."""

    plan: Plan


@dataclass(frozen=True)
class GroupLost:
    """All workers are gone, and with them all pages."""

    error: HiarError
    suspects: frozenset[str]
    """Videos that the worker at fault was busy with."""
    for_good: bool
    """Whether no other group will come."""


@dataclass(frozen=True)
class WorkerSaid:
    """A message about a prompt or a video."""

    rank: int
    message: ForFront


@dataclass(frozen=True)
class TimePassed:
    """The moment of the last ``SetTimer`` has come."""


OfReader = Joined | BlockTaken | Polled | Left
OfCaller = Asked | Restored | PromptAsked | Paused | Resumed | Cancelled | Stopped | Forgotten
OfStore = Stored | Failed
OfAll = GroupServes | GroupLost | Drained | Looked
Event = OfReader | OfCaller | OfStore | OfAll | WorkerSaid | TimePassed

# --- commands ---


@dataclass(frozen=True)
class SendChain:
    """Send to every worker of a chain."""

    chain: int
    message: Ticket | Cancel


@dataclass(frozen=True)
class Ask:
    """Have a prompt embedded, or a picture encoded."""

    question: Question


@dataclass(frozen=True)
class Wake:
    """Something changed for who waits for a video."""

    video: Video


@dataclass(frozen=True)
class PromptSet:
    """The video follows the prompt from this block on."""

    number: int
    block: int


@dataclass(frozen=True)
class PromptRefused:
    """The video takes no more prompts."""

    number: int
    error: HiarError


@dataclass(frozen=True)
class SetTimer:
    """Come back at this moment if nothing happens before; None: only when something happens."""

    at: float | None


Command = SendChain | Ask | Wake | PromptSet | PromptRefused | SetTimer
