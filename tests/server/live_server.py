"""The real HTTP server on a loopback port, in a thread, on a fake engine."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from server.app import create_app
from server.http.protocol import HttpConfig
from server.main import DrainingServer
from server.metrics.families import Families
from server.settings import Settings, TransportLimits
from tests.server.fake_engine import FakeEngine

QUICK = TransportLimits(
    header_timeout_s=0.5, body_timeout_s=0.5, send_timeout_s=1.0, keep_alive_s=0.2, first_fragment_timeout_s=5.0
)


@dataclass
class LiveServer:
    engine: FakeEngine
    settings: Settings
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    server: DrainingServer | None = None

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __post_init__(self) -> None:
        self.address: tuple[str, int] = self.listener.getsockname()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        families = Families(self.engine.manifest.rollout.num_stages)
        config = HttpConfig(create_app(self.settings, self.engine, families), self.settings.transport)
        self.server = DrainingServer(config, self.engine, self.settings.drain_timeout_s)
        await self.server.serve(sockets=[self.listener])

    def start(self) -> None:
        self.thread.start()
        eventually(lambda: self.server is not None and self.server.started)

    def signal(self) -> None:
        assert self.server is not None
        self.server.handle_exit(signal.SIGTERM, None)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.signal()
            time.sleep(0.01)
            self.signal()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def send_raw(self, data: bytes, timeout_s: float = 5.0) -> bytes:
        """Send bytes and return all that comes until the server closes."""
        with socket.create_connection(self.address, timeout=timeout_s) as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """Wait until ``condition`` holds. Returns the seconds it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < within_s, "the condition did not come true"
        time.sleep(0.005)
    return time.monotonic() - began_s


@contextmanager
def serving(
    engine: FakeEngine | None = None, transport: TransportLimits = QUICK, **settings: object
) -> Iterator[LiveServer]:
    live = LiveServer(engine or FakeEngine(), Settings(transport=transport, **settings))
    live.start()
    try:
        yield live
    finally:
        live.stop()
