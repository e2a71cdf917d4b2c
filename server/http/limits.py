"""Bounds on a request body, before any route sees it: its size and the time it takes to arrive.

Pure ASGI. Knows no route and no field. The whole body is read here, so what lies behind never waits for a slow sender.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import INVALID_REQUEST, REQUEST_TIMEOUT, TOO_LARGE, ApiError
from server.http.refusing import refuse
from server.settings import TransportLimits


class BodyLimit:
    """Reads at most ``limits.body_bytes`` within ``limits.body_timeout_s``, else answers 413 or 408 and closes."""

    def __init__(self, app: ASGIApp, limits: TransportLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the body, or None if the client left before its end."""
        if not self._declares_body(headers):
            return b""
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._collect(receive)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.body_timeout_s:g} s"
            raise ApiError(REQUEST_TIMEOUT, message) from None

    def _declares_body(self, headers: Headers) -> bool:
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if length is not None and coding is not None:
            # Two framings of one body: a proxy in front may have believed the other one.
            message = "send Content-Length or Transfer-Encoding, not both"
            raise ApiError(INVALID_REQUEST, message)
        if length is not None and int(length) > self._limits.body_bytes:
            raise self._too_large()
        return coding is not None or int(length or 0) > 0

    async def _collect(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self._limits.body_bytes} bytes"
        return ApiError(TOO_LARGE, message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out ``body`` once; afterwards what really happens on the connection."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
