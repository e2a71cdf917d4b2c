"""One line a request in the log, refused ones too, when its answer is over. Pure ASGI.

It tells the path without its query, so no token, and never a prompt. Probes and scrapes are told at level debug.
"""

import logging
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine import EndReason
from server.errors import ERROR_KEY, ApiError
from server.http.callers import key_name
from server.http.envelope import is_head
from server.http.exchange import exchange_of, note_end
from server.http.wire import ClientTooSlow
from server.logs import FIELDS

_log = logging.getLogger("hiar.access")
_PATH_LENGTH = 256


class AccessLog:
    """Wraps an application; stands behind ``Envelope``, which numbers requests."""

    def __init__(self, app: ASGIApp, quiet: Collection[str]) -> None:
        """``quiet``: addresses that machines ask all the time."""
        self._app, self._quiet = app, quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status, num_bytes = time.monotonic(), None, 0

        async def send_counted(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            num_bytes += len(message.get("body", b""))

        try:
            await self._app(scope, receive, send_counted)
        except ClientTooSlow:
            note_end(scope, EndReason.SLOW_CLIENT.value)
            raise
        finally:
            level = logging.DEBUG if scope["path"] in self._quiet else logging.INFO
            if _log.isEnabledFor(level):
                _tell(level, _fields(scope, status, num_bytes, time.monotonic() - began_s))


def tell_refused(error: ApiError) -> None:
    """Tell of bytes that were answered without being a request."""
    fields = dict.fromkeys(("request_id", "key", "method", "path"))
    _tell(logging.INFO, {**fields, "status": error.row.status, "video_id": None, "ms": 0, "bytes": 0, **_end(error)})


def _fields(scope: Scope, status: int | None, num_bytes: int, took_s: float) -> dict[str, object]:
    exchange, error = exchange_of(scope), scope.get(ERROR_KEY)
    left = "client_disconnect" if status is None else None
    return {
        "request_id": exchange.request_id,
        "key": key_name(scope),
        "method": "HEAD" if is_head(scope) else scope["method"],
        "path": scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")[:_PATH_LENGTH],
        "status": status,
        "video_id": exchange.plain_video_id,
        "ms": round(took_s * 1000),
        "bytes": num_bytes,
        **(_end(error) if error is not None else {"end_reason": exchange.end_reason or left}),
    }


def _end(error: ApiError) -> dict[str, object]:
    return {"end_reason": error.row.code}


def _tell(level: int, fields: dict[str, object]) -> None:
    shown = {name: "-" if value is None else value for name, value in fields.items()}
    line = "{request_id} {key} {method} {path} {status} {video_id} {ms} ms {bytes} B {end_reason}".format_map(shown)
    _log.log(level, "%s", line, extra={FIELDS: fields})
