"""The real HTTP server on a loopback port, in a thread, on the real engine with workers that need no process."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from engine import EngineConfig
from server.app import create_app
from server.http.protocol import HttpConfig
from server.main import DrainingServer
from server.metrics.families import Families
from server.metrics.recorder import Recorder
from server.settings import Settings, TransportLimits
from server.videos.store.opening import open_store
from server.videos.store.store import Store
from tests.instant import MANIFEST, Behaviour, InstantEngine

if TYPE_CHECKING:
    from server.traces.traces import Traces

QUICK = TransportLimits(
    header_timeout_s=0.5, body_timeout_s=0.5, send_timeout_s=1.0, keep_alive_s=0.2, first_fragment_timeout_s=5.0
)


@dataclass
class LiveServer:
    settings: Settings
    behaviour: Behaviour = field(default_factory=Behaviour)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    server: DrainingServer | None = None
    store: Store | None = None
    """Where the settings name a folder; else it keeps nothing."""
    make_traces: "Callable[[], Traces] | None" = None

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __post_init__(self) -> None:
        self.address: tuple[str, int] = self.listener.getsockname()
        self.families = Families(MANIFEST.rollout.num_stages)
        config = EngineConfig(manifest=MANIFEST, **vars(self.settings.engine))
        self.engine = InstantEngine(config, self.behaviour, Recorder(self.families))
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        kept = None if self.settings.data is None else open_store(self.settings)
        if kept is not None:
            self.store = kept.store
            await kept.store.start(self.engine, None)
        await self.engine.start()
        traces = self.make_traces() if self.make_traces is not None else None
        self.app = create_app(self.settings, self.engine, self.families, traces, kept)
        config = HttpConfig(self.app, self.settings.transport)
        self.server = DrainingServer(config, self.engine, self.settings.drain_timeout_s)
        try:
            await self.server.serve(sockets=[self.listener])
        finally:
            await self.engine.stop()
            if kept is not None:
                await kept.store.stop()
                kept.release()
            if traces is not None:
                await traces.close()

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

    def begin(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        """Let the server's loop do something meanwhile."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the server's loop, where the engine lives."""

        async def call() -> None:
            function(*arguments)

        self.begin(call()).result(5)

    @contextmanager
    def holding(self, **body: object) -> Iterator[str]:
        """Have an endless video made, and read, meanwhile. Yields its id."""
        with httpx.stream("POST", f"{self.url}/v1/generate", json={"prompt": "x", **body}):
            yield self.engine.opened[-1].id

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
    behaviour: Behaviour | None = None, transport: TransportLimits = QUICK, **settings: object
) -> Iterator[LiveServer]:
    live = LiveServer(Settings(transport=transport, **{"metrics_keep_s": 0.0, **settings}), behaviour or Behaviour())
    live.start()
    try:
        yield live
    finally:
        live.stop()
