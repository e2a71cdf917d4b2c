"""The socket that the server listens on. Knows no HTTP."""

import errno
import os
import socket
import time
from typing import Any

from server.settings import SettingError

PAUSE_S = 0.5
"""Shorter than asyncio's pause after a failed accept, which is a second."""


class Listener(socket.socket):
    """Where connections arrive; without a free file they wait, and the process says so once a second.

    After an accept that found no file asyncio tries again as often as the backlog is long, logs each time, and starts
    a timer each time, whose number doubles every second. It stops at once where nothing is said to have arrived.
    """

    _full_until_s = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection. Raises ``OSError`` where no file is left for it, and ``BlockingIOError`` right after that."""
        if time.monotonic() < self._full_until_s:
            raise BlockingIOError(errno.EAGAIN, "connections wait for a file to be closed")
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._full_until_s = time.monotonic() + PAUSE_S
            reason = f"{os.strerror(error.errno)}: new connections wait; allow the process more (ulimit -n)"
            raise OSError(error.errno, reason) from None


def listen(host: str, port: int) -> Listener:
    """Bind before anything is loaded, so that a taken port is known at once. Raises ``SettingError``."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise SettingError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return Listener(fileno=bound.detach())


def address_of(listener: socket.socket) -> str:
    """Its address as the start of a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
