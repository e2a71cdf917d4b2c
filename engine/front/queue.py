"""Videos that wait for a place, in the order in which they came. Pure."""

from collections.abc import Iterator
from heapq import heappop, heappush

from engine.front.video import Video
from engine.request import VideoRequest


class Queue:
    """The queue; those of it whose prompts are embedded may start."""

    def __init__(self) -> None:
        self._waiting: dict[int, Video] = {}
        """By number of arrival."""
        self._startable: list[int] = []
        """A heap of such numbers; some may have left."""
        self._num_arrived = 0
        self._has_moved = False
        """Whether places changed since they were told."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def requests(self) -> Iterator[VideoRequest]:
        """What those who wait asked for, in their order."""
        return (video.request for video in self._waiting.values())

    def add(self, video: Video) -> None:
        """A video came."""
        self._num_arrived += 1
        video.arrival = self._num_arrived
        self._waiting[video.arrival] = video
        self._has_moved = True

    def prepared(self, video: Video) -> None:
        """Its prompts are embedded."""
        heappush(self._startable, video.arrival)

    def first(self) -> Video | None:
        """The first that may start; those whose prompts are still being embedded are passed over."""
        while self._startable and self._startable[0] not in self._waiting:
            heappop(self._startable)
        return self._waiting[self._startable[0]] if self._startable else None

    def drop(self, video: Video) -> None:
        """A video starts, or has ended; nothing happens if it does not wait."""
        self._has_moved |= self._waiting.pop(video.arrival, None) is not None

    def tell_positions(self) -> list[Video]:
        """Tell those who wait where they are. Returns those to whom that is news."""
        if not self._has_moved:
            return []
        self._has_moved = False
        return [video for place, video in enumerate(self._waiting.values(), 1) if video.story.tell_position(place)]

    def position(self, video: Video) -> int | None:
        """Its place, from 1; None if it does not wait."""
        if video.arrival not in self._waiting:
            return None
        return sum(arrival <= video.arrival for arrival in self._waiting)
