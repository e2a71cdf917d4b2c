"""The sockets that the server listens on. Knows no HTTP."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import time
from typing import Any

from server.settings import SettingError

_log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Shorter than asyncio's pause after a failed accept, which is a second."""


_NO_FILE = {errno.EMFILE, errno.ENFILE}


def tell_full_in_one_line(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop say without a traceback that no file was left for a connection."""

    def tell(told_by: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_FILE:
            _log.error("%s", error.strerror)
        else:
            told_by.default_exception_handler(context)

    loop.set_exception_handler(tell)


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
            if error.errno not in _NO_FILE:
                raise
            self._full_until_s = time.monotonic() + PAUSE_S
            reason = f"{os.strerror(error.errno)}: new connections wait; allow the process more (ulimit -n)"
            raise OSError(error.errno, reason) from None


def listen(host: str, port: int, *, is_open: bool) -> list[Listener]:
    """Bind before anything is loaded, so that a taken port is known at once.

    ``is_open``: whether others than this machine may reach it; if not, all addresses mean all of loopback.
    Raises ``SettingError``.
    """
    family, address = _resolved(host, port)
    own = ipaddress.ip_address(address.partition("%")[0])
    if is_open or own.is_loopback:
        return [_bound(family, address, port)]
    if not own.is_unspecified:
        raise SettingError(
            f"--host {host} can be reached from other machines and there are no keys: give --keys FILE, "
            "or --insecure to serve whoever reaches it"
        )
    _log.warning("without --keys or --insecure this machine alone is served, whatever --host %s says", host)
    if family == socket.AF_INET:
        return [_bound(family, "127.0.0.1", port)]
    first = _bound(family, "::1", port)
    return [first, _bound(socket.AF_INET, "127.0.0.1", first.getsockname()[1])]


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(
            f"cannot listen on {host}:{port}: {reason}; give --host an address of this machine"
        ) from None
    return family, str(address[0])


def _bound(family: socket.AddressFamily, address: str, port: int) -> Listener:
    is_any = family == socket.AF_INET6 and address == "::"
    try:
        has_both = is_any and socket.has_dualstack_ipv6()
        bound = socket.create_server((address, port), family=family, dualstack_ipv6=has_both)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(f"cannot listen on {address}:{port}: {reason}; give another port or --host") from None
    if is_any and not has_both:
        _log.warning("--host :: serves IPv6 alone: this system cannot take IPv4 at the same socket")
    return Listener(fileno=bound.detach())


def address_of(listener: socket.socket) -> str:
    """Its address as the start of a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
