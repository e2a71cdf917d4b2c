"""A reader of a video: its fragments from one block on, as they are made. Waits on one event loop."""

from types import TracebackType
from typing import Protocol, Self

from engine.errors import BlockGone
from engine.front.pacing import Cursor
from engine.front.video import Video
from engine.request import EndReason, Fragment


class Desk(Protocol):
    """What a reader tells the front."""

    def join(self, video: Video, cursor: Cursor) -> None:
        """It begins."""
        ...

    def taken(self, video: Video, cursor: Cursor) -> None:
        """It took its next block."""
        ...

    def leave(self, video: Video, cursor: Cursor, reason: EndReason) -> None:
        """It is gone."""
        ...


class Reader:
    """An async iterator over fragments. Counts as a reader from its making until ``leave`` or the end of its ``with``.

    Raises, when iterated:
        VideoFailed: the engine could not go on; fragments made before are yielded first.
        EngineUnavailable: the engine drained before the video got its turn.
        BlockGone: it was so slow that its next block is not kept any more.
    """

    def __init__(self, video: Video, cursor: Cursor, desk: Desk) -> None:
        self._video, self._cursor, self._desk = video, cursor, desk
        desk.join(video, cursor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    def __aiter__(self) -> Self:
        return self

    @property
    def next_block(self) -> int:
        """The first block that it has not taken."""
        return self._cursor.next_block

    async def __anext__(self) -> Fragment:
        """The next fragment; waits until it is made."""
        video, log = self._video, self._video.log
        while self._cursor.next_block >= log.next_block:
            if video.has_outcome:
                self.leave()
                raise video.failure or StopAsyncIteration
            await video.bell.rung()
        if self._cursor.next_block < log.first_block:
            raise BlockGone(f"block {self.next_block} is no longer kept; the earliest is {log.first_block}", "from")
        fragment = log.fragment(self._cursor.next_block)
        self._desk.taken(video, self._cursor)
        return fragment

    def leave(self, reason: EndReason = EndReason.CLIENT_DISCONNECT) -> None:
        """Read no more; ``reason`` is what the video ends with if this was what kept it. Idempotent."""
        self._desk.leave(self._video, self._cursor, reason)
