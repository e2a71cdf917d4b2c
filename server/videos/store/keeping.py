"""A running video on its way to the store: what the engine tells of it becomes records, and the store's troubles its
failure. Lives on the event loop; the writer works beside it.
"""

import asyncio
import errno

from engine import (
    EndReason,
    Fragment,
    HiarError,
    InitSegment,
    Recovery,
    StorageFailed,
    StorageFull,
    VideoHandle,
    is_interruption,
)
from server.videos.store.journal import Kind, block_record, init_record, record
from server.videos.store.writer import Life, Writer

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Keeping:
    """One of them: what the engine calls a ``KeptVideo``."""

    def __init__(self, video_id: str, writer: Writer, num_stored: int = 0) -> None:
        """``num_stored``: blocks that earlier lives stored."""
        self.video_id = video_id
        self.is_interrupted = False
        """Whether it only ended because the server does."""
        self.is_lost = False
        """Whether another server makes it now."""
        self._writer, self._num_stored = writer, num_stored
        self._loop = asyncio.get_running_loop()
        self._life = Life(video_id, self._written, self._failed)
        self._video: VideoHandle | None = None
        self._trouble: StorageFailed | None = None

    # --- what the engine tells ---

    def begun(self, init_segment: InitSegment) -> None:
        """Its init segment is known."""
        self._writer.write(self._life, init_record(init_segment))

    def prompted(self, block: int, text: str) -> None:
        """It follows a prompt from a block on."""
        self._writer.write(self._life, record(Kind.PROMPT, {"block": block, "text": text}))

    def added(self, fragment: Fragment) -> None:
        """A block is there."""
        self._writer.write(self._life, block_record(fragment), num_blocks=1)

    def recovered(self, recovery: Recovery) -> None:
        """It goes on with other workers."""
        self._writer.write(self._life, record(Kind.RECOVERY, {"block": recovery.block, "exact": recovery.exact}))

    def paused(self, is_paused: bool) -> None:
        """It was paused, or is to go on."""
        self._writer.write(self._life, record(Kind.PAUSE, {"is_paused": is_paused}))

    def ended(self, outcome: EndReason | HiarError) -> None:
        """It is decided how it ended."""
        self.is_interrupted = is_interruption(outcome)

    @property
    def num_stored(self) -> int:
        """First blocks that are still there if every process is killed now."""
        return self._num_stored

    # --- what the store does ---

    def hold(self, video: VideoHandle) -> None:
        """The video whose record this is: it is told of what is written."""
        self._video = video
        if self._trouble is not None:
            video.fail(self._trouble)

    def give(self, data: bytes) -> None:
        """Keep bytes of the request."""
        self._writer.write(self._life, record(Kind.GIVEN, {}, data))

    async def written(self, *, is_last: bool = False) -> None:
        """Return when all that was told is on the disk, or cannot be."""
        await asyncio.wrap_future(self._writer.flush(self._life, is_last=is_last))

    @property
    def trouble(self) -> StorageFailed | None:
        """Why it cannot be stored, if so."""
        return self._trouble

    def _written(self, num_blocks: int) -> None:
        self._num_stored += num_blocks
        self._loop.call_soon_threadsafe(self._tell_written)

    def _tell_written(self) -> None:
        if self._video is not None:
            self._video.stored()

    def _failed(self, error: OSError) -> None:
        self._loop.call_soon_threadsafe(self._tell_failed, storage_trouble(error))

    def _tell_failed(self, trouble: StorageFailed) -> None:
        self._trouble = trouble
        if self._video is not None:
            self._video.fail(trouble)


def storage_trouble(error: Exception) -> StorageFailed:
    """What a video fails with that cannot be stored. Paths of the server are for its log."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFull("there is no room left to store the video")
    return StorageFailed("the video could not be stored; the server's log says why")
