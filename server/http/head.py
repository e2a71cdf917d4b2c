"""Bounds on the head of a request, exact whatever pieces it comes in: its address, its headers, its version.

h11 alone looks only at what is incomplete, so a long head that comes at once would pass, and takes any version.
"""

from typing import Any

import h11

from server.errors import HEADERS_TOO_LARGE, INVALID_REQUEST, UNSUPPORTED_VERSION, URI_TOO_LONG, ApiError

HEAD_BYTES = 65_536
"""Of the request's line and its headers together."""
TARGET_BYTES = 8192
"""Of the address, query included."""
_METHOD_BYTES = 64
"""More than any method and the blanks of the line."""
_VERSIONS = (b"1.0", b"1.1")


class HeadRefused(h11.RemoteProtocolError):
    """The head of a request is out of bounds."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message, error_status_hint=error.row.status)
        self.error = error


class BoundedConnection(h11.Connection):
    """What a server has read of a connection. ``refusal`` is why it can read no more."""

    refusal: ApiError | None = None

    def next_event(self) -> Any:
        """The next one. Raises ``h11.RemoteProtocolError`` where there can be none."""
        is_head = self.their_state is h11.IDLE
        try:
            event = super().next_event()
            if is_head:
                self._check(event)
        except HeadRefused as refused:
            self.refusal = refused.error
            raise
        except h11.RemoteProtocolError as error:
            is_too_long = is_head and error.error_status_hint == HEADERS_TOO_LARGE.status
            self.refusal = _too_long() if is_too_long else _no_http()
            raise
        return event

    def _check(self, event: Any) -> None:
        if event is h11.NEED_DATA:
            line = self.trailing_data[0]
            if len(line) > TARGET_BYTES + _METHOD_BYTES and b"\n" not in line[: TARGET_BYTES + _METHOD_BYTES]:
                raise HeadRefused(_target_too_long())
        if not isinstance(event, h11.Request):
            return
        if event.http_version not in _VERSIONS:
            raise HeadRefused(ApiError(UNSUPPORTED_VERSION, "this server speaks HTTP/1.1"))
        if len(event.target) > TARGET_BYTES:
            raise HeadRefused(_target_too_long())
        if _num_bytes(event) > HEAD_BYTES:
            raise HeadRefused(_too_long())


def _num_bytes(request: h11.Request) -> int:
    line = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(b": \r\n") for name, value in request.headers) + len(b"\r\n")


def _too_long() -> ApiError:
    return ApiError(HEADERS_TOO_LARGE, f"the headers are longer than {HEAD_BYTES} bytes")


def _target_too_long() -> ApiError:
    return ApiError(URI_TOO_LONG, f"the address is longer than {TARGET_BYTES} bytes")


def _no_http() -> ApiError:
    return ApiError(INVALID_REQUEST, "this is not a valid HTTP/1.1 request")
