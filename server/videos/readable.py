"""A video as the routes read one, wherever it lies: in the engine, or, ended, in the store.

Blocks in the store are read from files, so that is done on a thread.
"""

import asyncio
from collections.abc import Sequence

from engine import Fragment, Reader, VideoHandle, VideoRequest
from server.videos.store.elsewhere import RunningElsewhere
from server.videos.store.ended import EndedReader, EndedVideo

AnyVideo = VideoHandle | EndedVideo
"""Can be read here."""
ToldVideo = AnyVideo | RunningElsewhere
"""Can be told of here."""
AnyReader = Reader | EndedReader


async def request_of(video: AnyVideo) -> VideoRequest:
    """All that was asked for, pictures to begin with too."""
    if isinstance(video, EndedVideo):
        return await asyncio.to_thread(video.whole_request)
    return video.request


async def extended(video: AnyVideo, seconds: float, prompt: str | None, owner: str) -> VideoRequest:
    """The request for a video that continues an ended one. Raises ``Conflict`` or ``BlockGone``."""
    if isinstance(video, EndedVideo):
        return await asyncio.to_thread(video.extended, seconds, prompt, owner)
    return video.extended(seconds, prompt, owner)


async def fragment_of(video: AnyVideo, block: int) -> Fragment:
    """One block that is kept."""
    if isinstance(video, EndedVideo):
        return await asyncio.to_thread(video.peek, block)
    return video.peek(block)


def data_of(video: AnyVideo, blocks: Sequence[int]) -> Sequence[bytes]:
    """The bytes of blocks, for a thread to look at."""
    if isinstance(video, EndedVideo):
        return video.data_of(blocks)
    return [video.peek(block).data for block in blocks]


def durations_s_of(video: AnyVideo, blocks: Sequence[int]) -> list[float]:
    """The playback times of blocks."""
    if isinstance(video, EndedVideo):
        return [video.duration_s(block) for block in blocks]
    return [video.peek(block).duration_s for block in blocks]
