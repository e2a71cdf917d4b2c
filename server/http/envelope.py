"""What every exchange has in common: a request id on the answer, and HEAD answered like GET.

Pure ASGI. Knows no route.
"""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.exchange import begin_exchange

_HEAD_KEY = "hiar.head"


def is_head(scope: Scope) -> bool:
    """Whether a request that looks like GET asked for the headers only."""
    return bool(scope.get(_HEAD_KEY))


class Envelope:
    """Wraps an application. The id is ours alone: one from a header could smuggle text into logs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"r_{secrets.token_hex(8)}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        if scope["method"] == "HEAD":
            # A copy: the server below keeps its own HEAD and leaves the body out.
            scope = {**scope, "method": "GET", _HEAD_KEY: True}
        begin_exchange(scope, request_id)
        await self._app(scope, receive, send_with_id)
