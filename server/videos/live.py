"""Delivers a reader of a video as an MP4 stream while it is being generated.

Knows no route and no schema. The life of an answer: wait for the first fragment (every failure until then is a real
status code); send headers, init segment and first fragment at once; then a fragment at a time; then an end box and a
clean end, or an error box and an aborted connection. A client that leaves, at any point, is a reader that leaves.
"""

import asyncio
import logging
import time
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine import BlockGone, EndReason, EngineState, Fragment, HiarError, Reader, VideoHandle, VideoState
from server.errors import FIRST_FRAGMENT_TIMEOUT, GONE, NO_PLACE, ApiError, row_of, unavailable
from server.http.envelope import is_head
from server.http.exchange import note_end
from server.http.wire import ClientTooSlow, wire_of
from server.metrics.streams import StreamRecord
from server.settings import TransportLimits
from server.videos.arrivals import Arrivals, while_connected
from server.videos.boxes import KEEP_ALIVE, end_box, error_box

_log = logging.getLogger(__name__)


class StreamAborted(Exception):
    """Ends the connection without the final chunk, so that a transport error follows the in-band one."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason)
        self.reason = reason


class HideAborts(logging.Filter):
    """Drops log records of exceptions that only carry the abort to the HTTP server: they have been logged already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep the record."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, StreamAborted | ClientTooSlow | asyncio.CancelledError)


class LiveStream(Response):
    """One reader's answer. The reader leaves when the answer is over."""

    def __init__(
        self, video: VideoHandle, reader: Reader, headers: dict[str, str], limits: TransportLimits, record: StreamRecord
    ) -> None:
        """``headers``: those that do not follow from the video."""
        super().__init__()
        self._video, self._reader = video, reader
        self._extra_headers = headers
        self._limits = limits
        self._record = record
        self._media_bytes, self._media_s = 0, 0.0
        """What was given to be sent."""
        self._told: str | None = None
        """What the stream has said of its end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deliver. Raises ``HiarError`` or ``ApiError`` before the first byte, ``StreamAborted`` or ``ClientTooSlow``
        after it.
        """
        reason = EndReason.INTERNAL_ERROR
        try:
            if is_head(scope):
                await self._send_head(send)
                await self._send(send, b"", more=False)
            elif not await while_connected(receive, self._deliver(send), wire_of(scope).watch(self._least_per_s)):
                _log.info("video %s: a reader left after block %d", self._video.id, self._reader.next_block - 1)
            reason = EndReason.CLIENT_DISCONNECT
        except StreamAborted as error:
            reason = error.reason
            raise
        except ClientTooSlow:
            reason = EndReason.SLOW_CLIENT
            _log.warning("video %s: a reader took too little and is cut off", self._video.id)
            raise
        except asyncio.CancelledError:
            reason = EndReason.DRAIN  # the server leaves without waiting
            raise
        finally:
            note_end(scope, self._told or reason)
            self._reader.leave(reason)
            if self._video.is_ended:
                await self._video.freed()

    def _least_per_s(self) -> float:
        """Bytes that a viewer must take a second: half of what the video plays."""
        return self._media_bytes / self._media_s / 2 if self._media_s > 0 else 0.0

    async def _deliver(self, send: Send) -> None:
        arrivals = Arrivals(self._reader)
        try:
            first = await self._first(arrivals)
            await self._begin(first, send)
            await self._go_on(arrivals, send)
        finally:
            await arrivals.abandon()

    async def _first(self, arrivals: Arrivals) -> Fragment | None:
        """The first fragment; None behind the last one of an ended video."""
        timeout_s = left_s = self._limits.first_fragment_timeout_s
        try:
            while left_s > 0:
                paused_s = self._video.paused_s
                with suppress(TimeoutError):
                    return await arrivals.next(left_s)
                left_s = self._video.paused_s - paused_s  # as long as it was paused it could not come
        except HiarError as error:
            if self._record.is_callers:
                raise
            # Its maker was told what failed; to ask for this video again is of no use.
            raise ApiError(GONE, f"the video failed before its first block: {error.message}") from error
        raise await self._too_late(timeout_s)

    async def _too_late(self, waited_s: float) -> ApiError:
        is_queued = self._video.status().state is VideoState.QUEUED
        if self._record.is_callers:
            await self._video.stop(EndReason.TIMEOUT)
        if is_queued:
            return ApiError(NO_PLACE, f"no place became free within {waited_s:g} s; try again later")
        return ApiError(FIRST_FRAGMENT_TIMEOUT, f"there was no video within {waited_s:g} s; try again")

    async def _begin(self, first: Fragment | None, send: Send) -> None:
        init = self._video.init_segment
        if init is None or (first is None and not self._video.kept):
            raise _ended_early(self._video)
        await self._send_head(send)
        if first is None:
            await self._send(send, init.data)
            return
        await self._send_fragment(send, first, init.data)
        self._record.first_segment_sent()

    async def _go_on(self, arrivals: Arrivals, send: Send) -> None:
        try:
            while (fragment := await self._next(arrivals, send)) is not None:
                await self._send_fragment(send, fragment)
        except HiarError as error:
            await self._break(error, send)
        reason, last_block = self._video.end_reason, self._reader.next_block - 1
        assert reason is not None, "a stream ended whose video goes on"
        _log.info("video %s: a reader got its end: %s after block %d", self._video.id, reason, last_block)
        await self._send(send, end_box(reason.value, last_block), more=False)
        self._told = reason

    async def _break(self, error: HiarError, send: Send) -> None:
        """Tell the failure in the stream, then abort it. Raises ``StreamAborted``."""
        last_block, row = self._reader.next_block - 1, row_of(error)
        _log.warning("video %s: a stream broke after block %d: %s", self._video.id, last_block, error.message)
        await self._send(
            send, error_box(row.code, error.message, retryable=row.retry_s is not None, last_block=last_block)
        )
        if isinstance(error, BlockGone):
            raise StreamAborted(EndReason.SLOW_CLIENT) from error
        self._told = row.code
        raise StreamAborted(EndReason.CLIENT_DISCONNECT) from error

    async def _next(self, arrivals: Arrivals, send: Send) -> Fragment | None:
        while True:
            try:
                return await arrivals.next(self._limits.keep_alive_s)
            except TimeoutError:
                await self._send(send, KEEP_ALIVE)

    async def _send_head(self, send: Send) -> None:
        init = self._video.init_segment
        headers = {
            "Content-Type": f'video/mp4; codecs="{init.codecs}"' if init is not None else "video/mp4",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Accept-Ranges": "none",
            **self._extra_headers,
        }
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send_fragment(self, send: Send, fragment: Fragment, before: bytes = b"") -> None:
        self._media_bytes += len(fragment.data)
        self._media_s += fragment.duration_s
        await self._send(send, before + fragment.data)
        self._record.delivered(fragment.duration_s)

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        began_s, num_sent = time.monotonic(), 0
        try:
            await send({"type": "http.response.body", "body": data, "more_body": more})
            num_sent = len(data)
        finally:
            self._record.sent(num_sent, time.monotonic() - began_s)


def _ended_early(video: VideoHandle) -> Exception:
    if video.end_reason is EndReason.DRAIN:
        return unavailable(EngineState.DRAINING, "the server is shutting down")
    return ApiError(GONE, "the video was ended before its first block")
