"""What happened to a video, for those who watch it: numbered, the newest kept. Pure.

A plain value like the rest of the record. Whoever changes the video tells it here; readers come with the number of the
last happening that they have.
"""

from collections import deque
from dataclasses import dataclass

from engine.errors import HiarError
from engine.front.steps import Step
from engine.request import EndReason

KEPT = 128
"""Happenings that a video keeps."""
CHARACTER_BYTES = 4
"""Of a text in memory, at most."""


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits, at another place than before."""

    position: int
    """1 is next."""


@dataclass(frozen=True, slots=True)
class Started:
    """It left the queue."""


@dataclass(frozen=True, slots=True)
class Made:
    """A block is there."""

    block: int
    seconds_done: float
    lead_s: float | None
    realtime_factor: float | None
    steps: tuple[Step, ...] = ()
    """Its denoise passes, in order, as far as they are known."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """It follows a prompt, or will, from a block on. Of several for one block the last one counts."""

    block: int
    at_s: float
    """Playback time of that block."""
    text: str


@dataclass(frozen=True, slots=True)
class Paused:
    """No more blocks of it are begun."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """It goes on, at once or when it has a place again."""


@dataclass(frozen=True, slots=True)
class Recovering:
    """Its workers are lost; it waits for others."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """It goes on with others, or after it slept."""

    block: int
    """The first that they make."""
    exact: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes. Always the last."""

    outcome: EndReason | HiarError
    blocks_done: int
    seconds_done: float


Happening = Queued | Started | Made | Prompted | Paused | Resumed | Recovering | Recovered | Ended


class Story:
    """The happenings of one video."""

    def __init__(self, last: int = 0) -> None:
        """``last``: the number behind which happenings are numbered."""
        self._kept: deque[tuple[int, Happening]] = deque(maxlen=KEPT)
        self._last = last
        self._position: int | None = None
        """In the queue, as it was told."""

    def tell(self, happening: Happening) -> None:
        """It happened; it is the next in number."""
        if isinstance(happening, Started | Paused):
            self._position = None  # should it wait again, its place is news
        self._last += 1
        self._kept.append((self._last, happening))

    def tell_position(self, position: int) -> bool:
        """Its place in the queue. Returns whether that is news."""
        is_news = position != self._position
        if is_news:
            self._position = position
            self.tell(Queued(position))
        return is_news

    @property
    def text_bytes(self) -> int:
        """What the prompts in it take, at most."""
        return sum(CHARACTER_BYTES * len(one.text) for _, one in self._kept if isinstance(one, Prompted))

    def after(self, number: int) -> tuple[int, Happening] | None:
        """The first that is kept behind ``number``, with its own; None if there is none yet.

        One that never was is of another life of the server: everything kept is behind it.
        """
        if number == self._last or not self._kept:
            return None
        first = self._kept[0][0]
        return self._kept[number + 1 - first if first <= number < self._last else 0]
