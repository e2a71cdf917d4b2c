"""A video as HLS: a playlist, an init segment, and a segment for each block, for any number of players.

Whoever asks for one of these watches the video, and counts as its reader for a while behind the last request: a
player says that it begins and never that it leaves.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from engine import BlockGone, Engine, Fragment, VideoHandle, VideoState
from server.errors import (
    CLIENT_LEFT,
    FIRST_FRAGMENT_TIMEOUT,
    GONE,
    INVALID_REQUEST,
    LATE_BLOCK,
    NO_PLACE,
    NOT_FOUND,
    ApiError,
)
from server.http.callers import caller_of, viewer_token
from server.http.tokens import ViewerTokens
from server.metrics.families import Families
from server.metrics.streams import count_hls_segment
from server.settings import Settings
from server.videos.arrivals import while_connected
from server.videos.playlist import FURTHEST_RELOAD, listed, playlist, target_s
from server.videos.query import block_number, reload_of

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
PATIENCE = 3
"""Target durations that a request waits for a block, as the standard has it."""
HOLD_MIN_S = 15.0
"""A viewer counts for this long without asking for anything, or for ``PATIENCE`` target durations if that is more."""
_FOREVER = "max-age=3600, immutable"


class HlsRoutes:
    """The addresses that players of HLS ask for."""

    def __init__(self, engine: Engine, settings: Settings, families: Families, tokens: ViewerTokens) -> None:
        self._engine, self._limits, self._viewers, self._tokens = engine, settings.transport, families.viewers, tokens
        self._scope = "public" if settings.keys is None else "private"
        """Who may keep answers for others."""

    async def playlist(self, video_id: str, request: Request) -> Response:
        """The playlist; waits for the first block, and for the one that `_HLS_msn` names."""
        video, wanted = self._engine.video(video_id), reload_of(request)
        await self._begun(video, request)
        if wanted is not None and not video.is_ended:
            await self._reloaded(video, wanted, request)
        kept = listed(video.kept)
        durations_s = [video.peek(block).duration_s for block in kept]
        hint = kept.stop if kept.stop != video.num_blocks else None
        token = viewer_token(caller_of(request.scope), self._tokens, video_id)
        text = playlist(kept.start, durations_s, video.block_s, is_ended=video.is_ended, hint=hint, token=token)
        return Response(text, headers={"Cache-Control": f"{self._scope}, no-cache"}, media_type=PLAYLIST_TYPE)

    async def init_segment(self, video_id: str, request: Request) -> Response:
        """What a player needs before the first segment."""
        video = self._engine.video(video_id)
        await self._begun(video, request)
        assert video.init_segment is not None, "a block came before the init segment"
        return self._media(video.init_segment.data)

    async def block(self, video_id: str, n: str, request: Request) -> Response:
        """One block; waits for one that comes next."""
        video, block = self._engine.video(video_id), block_number(n)
        if not await self._waited(video, request, lambda: _has_come(video, block), _patience_s(video)):
            raise ApiError(LATE_BLOCK, f"block {block} did not come in time; ask again")
        fragment = _fragment(video, block)
        video.poll(_hold_s(video), block)
        count_hls_segment(self._viewers, len(fragment.data), fragment.duration_s)
        return self._media(fragment.data)

    async def _begun(self, video: VideoHandle, request: Request) -> None:
        """Wait for the first block. Raises ``ApiError`` if it does not come."""
        timeout_s = self._limits.first_fragment_timeout_s
        has_begun = await self._waited(video, request, lambda: len(video.kept) > 0 or video.is_ended, timeout_s)
        if len(video.kept) > 0:
            return
        if has_begun:
            reason = "was ended" if video.failure is None else "failed"
            raise ApiError(GONE, f"the video {reason} before its first block")
        if video.status().state is VideoState.QUEUED:
            raise ApiError(NO_PLACE, f"no place became free within {timeout_s:g} s; try again later")
        raise ApiError(FIRST_FRAGMENT_TIMEOUT, f"there was no video within {timeout_s:g} s; try again")

    async def _reloaded(self, video: VideoHandle, wanted: int, request: Request) -> None:
        """Wait until a block is in the playlist. Raises ``ApiError`` if it is too far ahead or late."""
        newest = video.kept.stop - 1
        if wanted > newest + FURTHEST_RELOAD:
            message = f"_HLS_msn: {wanted} is more than {FURTHEST_RELOAD} behind {newest}, the newest"
            raise ApiError(INVALID_REQUEST, message, param="_HLS_msn")
        has_come = await self._waited(
            video, request, lambda: video.kept.stop > wanted or video.is_ended, _patience_s(video)
        )
        if not has_come:
            raise ApiError(LATE_BLOCK, f"block {wanted} did not come in time; ask again")

    async def _waited(self, video: VideoHandle, request: Request, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until it is so; False if that takes longer. It counts as a reader meanwhile.

        Raises ``ApiError`` if the client leaves.
        """
        video.poll(_hold_s(video))
        if is_so():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                if not await while_connected(request.receive, _until(video, is_so)):
                    raise ApiError(CLIENT_LEFT, "the client left")
        except TimeoutError:
            return False
        return True

    def _media(self, data: bytes) -> Response:
        return Response(data, headers={"Cache-Control": f"{self._scope}, {_FOREVER}"}, media_type="video/mp4")


async def _until(video: VideoHandle, is_so: Callable[[], bool]) -> None:
    hold_s = _hold_s(video)
    while not is_so():
        video.poll(hold_s)
        try:
            async with asyncio.timeout(hold_s / 2):
                await video.changed()
        except TimeoutError:
            continue


def _has_come(video: VideoHandle, block: int) -> bool:
    """Whether a block is there. Raises ``ApiError`` or ``HiarError`` if waiting for it makes no sense."""
    if block in video.kept:
        return True
    if video.num_blocks is not None and block >= video.num_blocks:
        raise ApiError(NOT_FOUND, f"the video has blocks 0 to {video.num_blocks - 1}; there will be no block {block}")
    video.expect(block)
    return False


def _fragment(video: VideoHandle, block: int) -> Fragment:
    if block < video.kept.start:
        raise BlockGone(f"block {block} is no longer kept; the earliest is {video.kept.start}")
    return video.peek(block)


def _patience_s(video: VideoHandle) -> float:
    return float(PATIENCE * target_s(video.block_s))


def _hold_s(video: VideoHandle) -> float:
    return max(HOLD_MIN_S, _patience_s(video))
