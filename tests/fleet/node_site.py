"""A front and other nodes on loopback, with stand-ins for worker processes."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from engine.engine_config import EngineConfig, Nodes
from engine.fleet.agent import run_agent
from engine.fleet.local import WorkerHandle
from engine.fleet.nodes import NodeHub
from engine.manifest import read_manifest
from engine.messages import Cancel, VideoClosed

TINY = read_manifest(Path("models/tiny"))


def free_port() -> int:
    """A port whose successor is free too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, suppress(OSError, OverflowError):
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def config(rank: int, port: int, num_nodes: int = 2, **settings: Any) -> EngineConfig:
    nodes = Nodes(num_nodes=num_nodes, rank=rank, master_addr="127.0.0.1", master_port=port)
    return EngineConfig(
        **{"manifest": TINY, "devices": ("cpu",) * rank or ("cpu",), "nodes": nodes, "start_timeout_s": 5.0, **settings}
    )


class FakeWorker:
    """Answers ``Cancel`` with ``VideoClosed`` and dies on request."""

    def __init__(self, opened: "list[FakeWorker]", config: EngineConfig, device: str, on_message: Any, on_lost: Any):
        self.config, self.device, self.on_message, self.on_lost = config, device, on_message, on_lost
        self.received: list[Any] = []
        self.alive, self.aborted, self.stopped = True, False, False
        opened.append(self)

    pid = None

    def send(self, message: Any) -> None:
        self.received.append(message)
        if isinstance(message, Cancel):
            self.on_message(VideoClosed(video=message.video, pages_used=0))

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            if not self.stopped:
                self.on_lost(f"the worker on {self.device} ended with exit code -9")

    def abort(self) -> None:
        self.aborted = True

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.sleep(0.01)
        self.alive = False


class Site:
    """A hub, its agents by rank, and what happened on the front's side."""

    def __init__(self, **settings: Any) -> None:
        self.port, self.settings = free_port(), settings
        self.hub = NodeHub(config(0, self.port, **settings))
        self.workers: list[FakeWorker] = []
        self.agents: list[asyncio.Task[None]] = []
        self.messages: list[Any] = []
        self.losses: list[str] = []

    def add_agent(self, rank: int = 1, leave: asyncio.Event | None = None, **settings: Any) -> "asyncio.Task[None]":
        def open_worker(*arguments: Any) -> FakeWorker:
            return FakeWorker(self.workers, *arguments)

        own = config(rank, self.port, **{**self.settings, **settings})
        agent = asyncio.create_task(run_agent(own, leave, open_worker=open_worker))
        self.agents.append(agent)
        return agent

    def start_worker(self, rank: int = 1, device: str = "cpu") -> WorkerHandle:
        return self.hub.open_worker(rank, device, self.messages.append, self.losses.append)

    async def open_worker(self) -> tuple[WorkerHandle, FakeWorker]:
        count = len(self.workers)
        handle = self.start_worker()
        await eventually(lambda: len(self.workers) > count)
        return handle, self.workers[-1]


@asynccontextmanager
async def site(**settings: Any) -> AsyncIterator[Site]:
    here = Site(**settings)
    await here.hub.start()
    try:
        yield here
    finally:
        await here.hub.stop()
        for agent in here.agents:
            agent.cancel()
        await asyncio.gather(*here.agents, return_exceptions=True)
        assert not any(worker.alive for worker in here.workers), "an agent left a worker behind"


async def eventually(condition: Callable[[], bool], within_s: float = 4.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(15):
            await body()

    asyncio.run(bounded())
