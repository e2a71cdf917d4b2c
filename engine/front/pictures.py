"""Pictures and clips that videos start from: encoded by a worker before the video may start.

Questions outlive a worker: what was not answered is asked again of the next one. A worker encodes in the order in which
it was asked, so one that dies did so over the oldest question, if over any. Pure; returns what is to be done.
"""

from dataclasses import dataclass

from engine.errors import VIDEO_FAILURES, VideoFailed
from engine.front.events import Ask, Command
from engine.front.video import Video, VideoState
from engine.messages import EncodePixels, PixelsEncoded, PixelsFailed
from engine.request import Pixels

BEFORE_START = frozenset({VideoState.QUEUED, VideoState.SLEEPING})
"""States of a video whose picture is not encoded yet."""
MAX_VAIN_LOSSES = 2
"""Workers that may die while a picture is the next to be encoded."""


@dataclass
class Wanted:
    """A picture that a video needs encoded."""

    video: Video
    pixels: Pixels
    num_lost: int = 0
    """Workers that died while it was next."""


class Pictures:
    """Open questions by their number, the oldest first."""

    def __init__(self) -> None:
        self._open: dict[int, Wanted] = {}
        self._next_request = 0

    def begin(self, video: Video) -> list[Command]:
        """Have the picture of a new video encoded."""
        assert video.request.start is not None, f"video {video.id} starts from no picture"
        request, self._next_request = self._next_request, self._next_request + 1
        self._open[request] = Wanted(video, video.request.start)
        return self._ask(request)

    def answer(self, message: PixelsEncoded) -> Video | None:
        """A worker's answer: the video's first blocks are given from now on. None if nobody waits for it any more."""
        wanted = self._open.pop(message.request, None)
        if wanted is None or wanted.video.state not in BEFORE_START:
            return None
        wanted.video.begin_with(message.blocks)
        return wanted.video

    def refused(self, message: PixelsFailed) -> tuple[Video, VideoFailed] | None:
        """A picture cannot be encoded: the video that fails by it, and how."""
        wanted = self._open.pop(message.request, None)
        if wanted is None or wanted.video.state not in BEFORE_START:
            return None
        return wanted.video, VIDEO_FAILURES.get(message.code, VideoFailed)(message.message)

    def worker_lost(self) -> Video | None:
        """All workers are gone: the video whose picture may be why, if there is one to give up."""
        self._forget_ended()
        oldest = next(iter(self._open.items()), None)
        if oldest is None:
            return None
        request, wanted = oldest
        wanted.num_lost += 1
        return self._open.pop(request).video if wanted.num_lost > MAX_VAIN_LOSSES else None

    def ask_again(self) -> list[Command]:
        """Put all open questions to a new worker."""
        self._forget_ended()
        return [command for request in self._open for command in self._ask(request)]

    def _ask(self, request: int) -> list[Command]:
        return [Ask(EncodePixels(request=request, pixels=self._open[request].pixels))]

    def _forget_ended(self) -> None:
        self._open = {number: one for number, one in self._open.items() if one.video.state in BEFORE_START}
