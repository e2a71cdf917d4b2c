"""The connection that an answer goes out on: what its client has not taken yet, and cutting off who is too slow.

That a send returned says only that the bytes are in a buffer of ours or of the kernel's. Whoever stops reading, or
reads byte by byte, is known by what stays there.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Never

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.uptake import Uptake
from server.settings import TransportLimits

if sys.platform == "linux":
    import fcntl
    import termios

_WIRE_KEY = "hiar.wire"
_LOOKS = 15
"""In the time that a client may be slow."""


class ClientTooSlow(Exception):
    """The client took too little; its connection is cut."""


class Wire:
    """One connection. Wraps the application for it."""

    def __init__(
        self,
        app: ASGIApp,
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
        limits: TransportLimits,
    ) -> None:
        """``drain`` waits until little is left in the transport's own buffer."""
        self._app, self._transport, self._drain, self._limits = app, transport, drain, limits
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._look_every_s = min(limits.send_timeout_s, limits.slow_window_s) / _LOOKS
        self._loop = asyncio.get_running_loop()
        self._num_given = 0
        self._is_cut = False

    @property
    def num_waiting(self) -> int:
        """Bytes that were given and that the client's side has not confirmed."""
        waiting = self._transport.get_write_buffer_size()
        if sys.platform == "linux" and self._socket.fileno() >= 0:
            waiting += int.from_bytes(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Sending raises ``ClientTooSlow``."""

        async def send_in_time(message: Message) -> None:
            await self._send(send, message)

        scope[_WIRE_KEY] = self
        await self._app(scope, receive, send_in_time)

    async def watch(self, least_per_s: Callable[[], float]) -> None:
        """Raise ``ClientTooSlow`` once the client takes nothing for long, or less than so many bytes a second."""
        uptake = Uptake(self._limits.send_timeout_s, self._limits.slow_window_s)
        while not uptake.is_too_slow(
            self._loop.time(),
            num_given=self._num_given,
            num_waiting=self.num_waiting,
            least_per_s=least_per_s(),
        ):
            await asyncio.sleep(self._look_every_s)
        self._cut()

    async def _send(self, send: Send, message: Message) -> None:
        self._num_given += len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._limits.send_timeout_s) as limit:
                self._look(limit, self._num_given - self.num_waiting)
                try:
                    await send(message)
                    if self._is_cut:  # a send that waited returns then as if all were well
                        raise ClientTooSlow
                    if message["type"] == "http.response.body" and not message.get("more_body", False):
                        await self._drain()  # nobody waits for the last bytes otherwise, whoever does not take them
                finally:
                    self._next_look.cancel()
        except TimeoutError:
            self._cut()

    def _look(self, limit: asyncio.Timeout, num_taken_before: int) -> None:
        """Give a send more time if the client took something meanwhile."""
        num_taken = self._num_given - self.num_waiting
        if num_taken > num_taken_before:
            limit.reschedule(self._loop.time() + self._limits.send_timeout_s)
        self._next_look = self._loop.call_later(self._look_every_s, self._look, limit, num_taken)

    def _cut(self) -> Never:
        """End the connection at once: what still waits would keep it open as long as the client likes."""
        self._is_cut = True
        self._transport.abort()
        raise ClientTooSlow


def wire_of(scope: Scope) -> Wire:
    """What an answer goes out on."""
    wire = scope[_WIRE_KEY]
    assert isinstance(wire, Wire)
    return wire
