"""Videos that wait for a place, in the order in which they came; but who has many lets others go first. Pure.

Each video that its owner has already, running or waiting, puts a new one behind as many as ``STEPS_BACK`` that come
later. So a newcomer does not wait for all that somebody else asked for before, and nobody waits for ever: only so many
can overtake.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from engine.front.video import Place, Video
from engine.request import VideoRequest

STEPS_BACK = 8


class Queue:
    """The queue; those of it whose prompts are embedded may start."""

    def __init__(self, live: Iterable[Video]) -> None:
        """``live``: all that run or wait, whoever owns them."""
        self._live = live
        self._line: list[Place] = []
        """In order."""
        self._waiting: dict[Place, Video] = {}
        self._startable: list[Place] = []
        """A heap; some may have left."""
        self._num_arrived = 0
        self._has_moved = False
        """Whether places changed since they were told."""

    def __len__(self) -> int:
        return len(self._line)

    @property
    def requests(self) -> Iterator[VideoRequest]:
        """What those who wait asked for, in their order."""
        return (self._waiting[place].request for place in self._line)

    def add(self, video: Video) -> None:
        """A video came."""
        self._num_arrived += 1
        video.place = self._num_arrived + STEPS_BACK * self._num_others(video), self._num_arrived
        insort(self._line, video.place)
        self._waiting[video.place] = video
        self._has_moved = True

    def prepared(self, video: Video) -> None:
        """Its prompts are embedded."""
        heappush(self._startable, video.place)

    def first(self) -> Video | None:
        """The first that may start; those whose prompts are still being embedded are passed over."""
        while self._startable and self._startable[0] not in self._waiting:
            heappop(self._startable)
        return self._waiting[self._startable[0]] if self._startable else None

    def drop(self, video: Video) -> None:
        """A video starts, or has ended; nothing happens if it does not wait."""
        if self._waiting.pop(video.place, None) is not None:
            del self._line[bisect_left(self._line, video.place)]
            self._has_moved = True

    def tell_positions(self) -> list[Video]:
        """Tell those who wait where they are. Returns those to whom that is news."""
        if not self._has_moved:
            return []
        self._has_moved = False
        waiting = (self._waiting[place] for place in self._line)
        return [video for number, video in enumerate(waiting, 1) if video.story.tell_position(number)]

    def position(self, video: Video) -> int | None:
        """Its place, from 1; None if it does not wait."""
        return bisect_left(self._line, video.place) + 1 if video.place in self._waiting else None

    def _num_others(self, video: Video) -> int:
        """Videos that its owner has beside it; none where nobody owns it."""
        owner = video.request.owner
        return sum(other.request.owner == owner != "" and other is not video for other in self._live)
