"""Bounds on a request body, before any route sees it: its size and the time it takes to arrive.

Pure ASGI. Knows no field. The whole body is read here, so what lies behind never waits for a slow sender. Bodies that
may hold a picture or a clip are larger, and only so many of them are in memory at once.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import INVALID_REQUEST, REQUEST_TIMEOUT, TOO_LARGE, ApiError
from server.http.refusing import refuse
from server.settings import TransportLimits

UPLOADS_AT_ONCE = 4
UPLOAD_BYTES_S = 256 * 1024
"""A large body may take as much longer as it takes at this rate."""
_PLACE = "hiar.upload"
"""Where the scope of a request with a large body holds its place among those."""


@dataclass(frozen=True)
class Uploads:
    """Which requests may have large bodies, and how large."""

    paths: Collection[str]
    max_bytes: int


class Place:
    """A place among the large bodies that are in memory."""

    def __init__(self, room: asyncio.Semaphore) -> None:
        self._room, self._is_held = room, False

    async def take(self) -> None:
        """Wait for one, unless it is held already."""
        if not self._is_held:
            await self._room.acquire()
            self._is_held = True

    def free(self) -> None:
        """Give it back, if it is held."""
        if self._is_held:
            self._is_held = False
            self._room.release()


def let_go_of_body(scope: Scope) -> None:
    """A route needs the body no longer: another large one may come."""
    place: Place | None = scope.get(_PLACE)
    if place is not None:
        place.free()


class BodyLimit:
    """Reads at most ``limits.body_bytes`` within ``limits.body_timeout_s``, else answers 413 or 408 and closes.

    Where ``uploads`` says so a body may be larger, and take longer.
    """

    def __init__(self, app: ASGIApp, limits: TransportLimits, uploads: Uploads) -> None:
        self._app = app
        self._limits, self._uploads = limits, uploads
        self._room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        place = Place(self._room)
        try:
            await self._answer(scope, receive, send, place)
        finally:
            place.free()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, place: Place) -> None:
        is_upload = scope["method"] == "POST" and scope["path"] in self._uploads.paths
        max_bytes = self._uploads.max_bytes if is_upload else self._limits.body_bytes
        try:
            body = await self._read(Headers(scope=scope), receive, place, max_bytes)
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        if body is not None:
            scope[_PLACE] = place
            replayed = _replay(body, receive)
            del body  # the route lets go of it as soon as it has read it
            await self._app(scope, replayed, send)

    async def _read(self, headers: Headers, receive: Receive, place: Place, max_bytes: int) -> bytes | None:
        """Return the body, or None if the client left before its end."""
        if not _declares_body(headers, max_bytes):
            return b""
        try:
            async with asyncio.timeout(self._limits.body_timeout_s) as timeout:
                return await self._collect(receive, place, max_bytes, timeout)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.body_timeout_s:g} s"
            raise ApiError(REQUEST_TIMEOUT, message) from None

    async def _collect(self, receive: Receive, place: Place, max_bytes: int, timeout: asyncio.Timeout) -> bytes | None:
        body, began_s = bytearray(), asyncio.get_running_loop().time()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if len(body) > self._limits.body_bytes:
                await place.take()
                timeout.reschedule(began_s + self._limits.body_timeout_s + len(body) / UPLOAD_BYTES_S)
            if not message.get("more_body", False):
                return bytes(body)


def _declares_body(headers: Headers, max_bytes: int) -> bool:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and coding is not None:
        # Two framings of one body: a proxy in front may have believed the other one.
        message = "send Content-Length or Transfer-Encoding, not both"
        raise ApiError(INVALID_REQUEST, message)
    if length is not None and int(length) > max_bytes:
        raise _too_large(max_bytes)
    return coding is not None or int(length or 0) > 0


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(TOO_LARGE, f"the body is larger than {max_bytes} bytes")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out ``body`` once; afterwards what really happens on the connection."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
