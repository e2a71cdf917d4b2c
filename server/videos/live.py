"""Delivers one video as an MP4 stream while it is being generated.

Knows no route and no schema. The life of an answer: open the video; wait for its first fragment (every failure until
then is a real status code); send headers, init segment and first fragment at once; then a fragment at a time; then an
end box and a clean end, or an error box and an aborted connection. A client that leaves, at any point, closes the
video.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine import (
    EndReason,
    Engine,
    EngineState,
    Fragment,
    HiarError,
    VideoHandle,
    VideoRequest,
    VideoState,
)
from server.errors import FIRST_FRAGMENT_TIMEOUT, GONE, NO_PLACE, ApiError, Finish, row_of, unavailable
from server.metrics.families import Families
from server.metrics.streams import StreamRecord
from server.settings import TransportLimits
from server.videos.boxes import KEEP_ALIVE, end_box, error_box

_log = logging.getLogger(__name__)


class StreamAborted(Exception):
    """Ends the connection without the final chunk, so that a transport error follows the in-band one."""

    def __init__(self, finish: Finish) -> None:
        super().__init__(finish)
        self.finish = finish


class HideAborts(logging.Filter):
    """Drops log records of exceptions that only carry the abort to the HTTP server: they have been logged already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep the record."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, StreamAborted | asyncio.CancelledError)


class LiveVideo(Response):
    """The answer to one generate request. It owns the video from opening to closing."""

    def __init__(
        self, engine: Engine, request: VideoRequest, limits: TransportLimits, families: Families, *, cut: bool
    ) -> None:
        super().__init__()
        self._engine = engine
        self._request = request
        self._limits = limits
        self._record = StreamRecord(families)
        self._cut = cut
        """The caller asked for an endless video and the server's limit ends it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deliver. Raises ``HiarError`` or ``ApiError`` before the first byte, ``StreamAborted`` after it."""
        video = await self._engine.open(self._request)
        _log.info("video %s opened: %dx%d", video.id, self._request.width_px, self._request.height_px)
        reason = Finish.INTERNAL_ERROR
        try:
            reason = await self._attend(video, receive, send)
        except (HiarError, ApiError) as error:
            reason = self._failed(error)
            raise
        except StreamAborted as error:
            reason = error.finish
            raise
        except asyncio.CancelledError:
            reason = Finish.DRAIN  # the server leaves without waiting
            raise
        finally:
            await video.close()
            self._record.ended(reason)

    def _failed(self, error: HiarError | ApiError) -> Finish:
        """Count what the engine gave up on. Returns how the video ended."""
        row = row_of(error)
        if row.finish is Finish.ENGINE_ERROR:
            self._record.failed(row.code)
        return row.finish or Finish.INTERNAL_ERROR

    async def _attend(self, video: VideoHandle, receive: Receive, send: Send) -> Finish:
        """Deliver while the client listens. Returns how the video ended."""
        if await _while_connected(receive, self._deliver(video, send)):
            return self._finish(video)
        _log.info("video %s: the client left after %d blocks", video.id, video.next_block)
        return Finish.CLIENT_DISCONNECT

    async def _deliver(self, video: VideoHandle, send: Send) -> None:
        arrivals = _Arrivals(video.fragments())
        try:
            first = await self._first(video, arrivals)
            await self._begin(video, first, send)
            await self._go_on(video, arrivals, send)
        finally:
            await arrivals.abandon()

    async def _first(self, video: VideoHandle, arrivals: "_Arrivals") -> Fragment:
        timeout_s = self._limits.first_fragment_timeout_s
        try:
            first = await arrivals.next(timeout_s)
        except TimeoutError:
            raise _too_late(video, timeout_s) from None
        if first is None:
            raise _ended_early(video)
        return first

    async def _begin(self, video: VideoHandle, first: Fragment, send: Send) -> None:
        facts = self._engine.facts
        assert facts is not None and video.init_segment is not None and video.codecs is not None
        headers = {
            "Content-Type": f'video/mp4; codecs="{video.codecs}"',
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Accept-Ranges": "none",
            "X-VideoHandle-Id": video.id,
            "X-Decoder": facts.decoder,
            "Access-Control-Expose-Headers": "X-Request-Id, X-VideoHandle-Id, X-Decoder",
        }
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await self._send(send, video.init_segment + first.data)
        self._record.first_segment_sent()
        self._record.delivered(first.duration_s)

    async def _go_on(self, video: VideoHandle, arrivals: "_Arrivals", send: Send) -> None:
        try:
            while (fragment := await self._next(arrivals, send)) is not None:
                await self._send(send, fragment.data)
                self._record.delivered(fragment.duration_s)
        except HiarError as error:
            _log.warning("video %s failed after %d blocks: %s", video.id, video.next_block, error.message)
            last_block = video.next_block - 1
            row = row_of(error)
            box = error_box(row.code, error.message, retryable=row.retry_s is not None, last_block=last_block)
            await self._send(send, box)
            raise StreamAborted(self._failed(error)) from error
        reason = self._end_reason(video)
        _log.info("video %s ended: %s after %d blocks", video.id, reason, video.next_block)
        await self._send(send, end_box(reason, video.next_block - 1), more=False)

    async def _next(self, arrivals: "_Arrivals", send: Send) -> Fragment | None:
        while True:
            try:
                return await arrivals.next(self._limits.keep_alive_s)
            except TimeoutError:
                await self._send(send, KEEP_ALIVE)

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        began_s, num_sent = time.monotonic(), 0
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await send({"type": "http.response.body", "body": data, "more_body": more})
            num_sent = len(data)
        except TimeoutError:
            _log.warning("a client took nothing for %g s and is cut off", self._limits.send_timeout_s)
            raise StreamAborted(Finish.SLOW_CLIENT) from None
        finally:
            self._record.sent(num_sent, time.monotonic() - began_s)

    def _finish(self, video: VideoHandle) -> Finish:
        reason = self._end_reason(video)
        return Finish.CLIENT_CANCEL if reason == EndReason.CANCELLED else Finish(reason)

    def _end_reason(self, video: VideoHandle) -> str:
        assert video.end_reason is not None
        return "limit" if self._cut and video.end_reason is EndReason.COMPLETED else video.end_reason.value


class _Arrivals:
    """The fragments of a video, waited for in slices: a wait that runs out loses nothing."""

    def __init__(self, fragments: AsyncIterator[Fragment]) -> None:
        self._fragments = fragments
        self._pending: asyncio.Task[Fragment | None] | None = None

    async def next(self, timeout_s: float) -> Fragment | None:
        """Return the next fragment, or None at the end. Raises ``TimeoutError``, and what the video failed with."""
        if self._pending is None:
            self._pending = asyncio.create_task(self._pull())
        await asyncio.wait({self._pending}, timeout=timeout_s)
        if not self._pending.done():
            raise TimeoutError
        arrived, self._pending = self._pending, None
        return arrived.result()

    async def abandon(self) -> None:
        """Stop waiting."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)

    async def _pull(self) -> Fragment | None:
        return await anext(self._fragments, None)


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Run ``work`` until it ends (True, or its exception) or until the client leaves (False)."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_client_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_late(video: VideoHandle, waited_s: float) -> Exception:
    if video.status().state is VideoState.QUEUED:
        return ApiError(NO_PLACE, f"no place became free within {waited_s:g} s; try again later")
    return ApiError(FIRST_FRAGMENT_TIMEOUT, f"there was no video within {waited_s:g} s; try again")


def _ended_early(video: VideoHandle) -> Exception:
    if video.end_reason is EndReason.DRAIN:
        return unavailable(EngineState.DRAINING, "the server is shutting down")
    return ApiError(GONE, "the video was closed before its first fragment")
