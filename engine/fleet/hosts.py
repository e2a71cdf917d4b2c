"""Where the devices of an engine are: on this host, or on this and others (``engine.fleet.nodes``)."""

from typing import Protocol

from engine.engine_config import EngineConfig
from engine.fleet.fork_server import prepare_workers
from engine.fleet.local import LocalWorker, OnLost, OnMessage, WorkerHandle


class Hosts(Protocol):
    """Where devices are: this host's, or those of several nodes (``engine.fleet.nodes``)."""

    async def wait_nodes(self) -> tuple[tuple[int, str], ...]:
        """(node rank, device) of every device, in node order. Raises ``StartError`` when a node does not come."""
        ...

    def open_worker(self, node_rank: int, device: str, on_message: OnMessage, on_lost: OnLost) -> WorkerHandle:
        """Start a worker there."""
        ...

    async def stop(self) -> None:
        """Let other nodes go."""
        ...


class ThisHost:
    """The devices of one host."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    async def wait_nodes(self) -> tuple[tuple[int, str], ...]:
        """All devices, of node 0."""
        await prepare_workers(self._config)
        return tuple((0, device) for device in self._config.devices)

    def open_worker(self, node_rank: int, device: str, on_message: OnMessage, on_lost: OnLost) -> WorkerHandle:
        """Start a worker process."""
        return LocalWorker(self._config, device, on_message, on_lost)

    async def stop(self) -> None:
        """There is no other node."""
