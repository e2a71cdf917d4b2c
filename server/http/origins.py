"""Which web pages may use this server: its own, and those of the origins that the operator allows.

Pure ASGI. A browser names the page's origin in every request that could change something or whose answer the page could
read. Allowed pages get the headers that CORS asks for; others are refused before anything is done.
"""

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import FORBIDDEN, ApiError
from server.http.hosts import split_host
from server.http.refusing import refuse

_READABLE = ", ".join(
    ("X-Request-Id", "X-Video-Id", "X-Decoder", "Location", "Retry-After", "Content-Range", "Accept-Ranges", "ETag")
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range",
    "Access-Control-Max-Age": "600",
}


class Origins:
    """Answers 403 to pages of other origins, and their preflights with 204 where they are allowed."""

    def __init__(self, app: ASGIApp, allowed: Collection[str], exempt: Collection[str]) -> None:
        """``allowed``: origins, such as ``https://app.example``. ``exempt``: addresses that need no check."""
        self._app, self._allowed, self._exempt = app, allowed, exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin in self._allowed:
            await self._answer(scope, receive, _sharing(origin, send))
        elif origin is None or _is_own(origin, headers.get("host", "")):
            await self._app(scope, receive, _varying(send) if self._allowed else send)
        else:
            await refuse(ApiError(FORBIDDEN, _REFUSAL), scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope):
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


_REFUSAL = "pages of this origin may not use this server; its operator can add it to --cors-origins"


def _is_own(origin: str, host: str) -> bool:
    """Whether the page came from here. The scheme is not compared: a proxy in front may have spoken TLS."""
    scheme, _, rest = origin.partition("://")
    return scheme in {"http", "https"} and split_host(rest) == split_host(host) is not None


def _sharing(origin: str, send: Send) -> Send:
    async def send_shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _READABLE
            headers.add_vary_header("Origin")
        await send(message)

    return send_shared


def _varying(send: Send) -> Send:
    """A cache must not hand a page of an allowed origin what was answered without one."""

    async def send_varying(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).add_vary_header("Origin")
        await send(message)

    return send_varying
