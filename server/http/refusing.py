"""Answers a request before its body was read. Pure ASGI; knows no route and no reason."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from server.errors import ERROR_KEY, REQUEST_TIMEOUT, ApiError

CLOSE = {"Connection": "close"}
_LINGER_S = 1.0
_LINGER_BYTES = 1_048_576


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with ``error``; where a body is on its way the connection ends behind the answer."""
    scope[ERROR_KEY] = error
    headers = Headers(scope=scope)
    if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
        await error.response()(scope, receive, send)
        return
    error.headers |= CLOSE
    await _answer_and_linger(error, receive, send)


async def _answer_and_linger(error: ApiError, receive: Receive, send: Send) -> None:
    """Answer at once, then read on for a moment: closing on unread bytes resets the connection and loses the answer."""
    linger_s = 0.0 if error.row is REQUEST_TIMEOUT else _LINGER_S
    response = error.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    drained = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(linger_s):
            while drained < _LINGER_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})
