"""HTTP/1.1 on one connection, hardened: deadlines, small buffers, and one request at a time.

Knows no route. Stock uvicorn waits for ever for a header, lets the kernel buffer megabytes of video, and stops seeing
that a client has left once a second request is pipelined behind a stream.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from server.errors import REQUEST_TIMEOUT, TOO_MANY_CONNECTIONS, ApiError
from server.http.head import HEAD_BYTES, BoundedConnection
from server.http.wire import Wire
from server.settings import TransportLimits

_log = logging.getLogger(__name__)
_NO_HTTP = "Invalid HTTP request received."
"""What uvicorn warns of; anybody who reaches the port could fill the log with it."""
_BACKLOG = 2048
_FLUSH_TIMEOUT_S = 5
_KERNEL_WAITS_LONGER_S = 4.0


class HideNoHttp(logging.Filter):
    """Drops uvicorn's warnings of bytes that are no request: each has its line in the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep the record."""
        return record.msg != _NO_HTTP


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration with our protocol and its limits; logging is left to the process."""

    def __init__(
        self,
        app: ASGIApp,
        limits: TransportLimits,
        on_refused: Callable[[ApiError], None] = lambda error: None,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        """``on_refused`` is told of what is answered without the application. ``trusted_proxies``: who may say, by
        X-Forwarded-For, whom it asks for.
        """
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_FLUSH_TIMEOUT_S,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
        )
        self.limits = limits
        self.on_refused = on_refused


class GuardedProtocol(H11Protocol):
    """One connection. The header deadline runs from the connection, or from the first byte of a later request."""

    def __init__(
        self,
        config: HttpConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_log = False  # uvicorn's own lines have the query, and so viewer tokens
        self.conn = BoundedConnection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._limits = config.limits
        self._on_refused = config.on_refused
        self._header_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound what the kernel may hold, then wait for a header."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(ApiError(TOO_MANY_CONNECTIONS, "too many connections"))
            return
        _bound_buffers(transport.get_extra_info("socket"), self._limits)
        self.app = Wire(self.app, transport, self.flow.drain, self._limits)
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._header_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless they are a second request behind a running one: that one is answered by closing."""
        if self._is_answering() and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not self._is_answering() and self._header_deadline is None:
            self._expect_header()
        super().data_received(data)
        if self._is_answering():
            self._header_arrived()
            if not self.cycle.more_body:
                # uvicorn stops reading at pipelined bytes and would no longer see the client leave.
                self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP."""
        assert isinstance(self.conn, BoundedConnection) and self.conn.refusal is not None, "refused without a reason"
        _log.debug("%s sent what is no request: %s", self.client, self.conn.refusal)
        self._refuse(self.conn.refusal)

    def _unsupported_upgrade_warning(self) -> None:
        _log.debug("%s asked for an upgrade, which there is none to", self.client)

    def _is_answering(self) -> bool:
        # uvicorn declares the attribute as always set, yet it is None until the first request.
        return bool(self.cycle) and not self.cycle.response_complete

    def _expect_header(self) -> None:
        self._header_deadline = self.loop.call_later(self._limits.header_timeout_s, self._header_is_late)

    def _header_arrived(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def _header_is_late(self) -> None:
        message = f"the request header did not arrive within {self._limits.header_timeout_s:g} s"
        self._refuse(ApiError(REQUEST_TIMEOUT, message))

    def _refuse(self, error: ApiError) -> None:
        """Answer without an application, and close."""
        self._header_arrived()
        if self.transport.is_closing():
            return
        self._on_refused(error)
        response = error.response()
        head = f"HTTP/1.1 {error.row.status} {HTTPStatus(error.row.status).phrase}\r\n".encode("ascii")
        fields = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self.transport.write(head + fields + b"connection: close\r\n\r\n" + bytes(response.body))
        self.transport.close()


def _bound_buffers(connection: socket.socket, limits: TransportLimits) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # asyncio does so only for sockets that say their protocol: without it an answer of two packets takes 40 ms.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A peer that vanished without a word acknowledges nothing: the kernel then ends the connection. It takes one
        # that has closed its window for such a peer, and also one whose window never has room for what is next, so it
        # must wait longer than we do, who know better.
        timeout_s = max(limits.send_timeout_s, limits.slow_window_s) + _KERNEL_WAITS_LONGER_S
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
