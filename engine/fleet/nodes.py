"""The front's side of the other nodes: who has joined, and a handle of each worker that runs there.

``NodeHub`` listens, admits nodes and hears their signs of life; ``RemoteWorker`` is to a worker of another node what
``LocalWorker`` is to one of this host. A node that is silent for ``stage_timeout_s``, or whose connection closes, is
lost with all its workers, and may join again. Knows no video and no restart policy.
"""

import asyncio
import logging
import os

from engine.engine_config import EngineConfig
from engine.errors import StartError
from engine.fleet import wire
from engine.fleet.clocks import ClockOfNode
from engine.fleet.fork_server import prepare_workers
from engine.fleet.hello import hello_of, objection
from engine.fleet.local import LocalWorker, OnLost, OnMessage, WorkerHandle
from engine.messages import FromWorker, Shutdown, ToWorker

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
HELLO_BYTES = 65_536
"""Bound of a first frame: who sends it is not known yet."""
PROOF_OF_LIFE_S = 3.0
"""When a rank is claimed twice, the one who has it must be heard within this time or loses it."""
STOP_S = 10.0
"""How long a node may take to end its workers, which have a grace time of their own there."""


class RemoteWorker:
    """The handle of a worker on another node. All callbacks run on the loop of the hub."""

    pid: int | None = None
    """Process ids of another host mean nothing here."""

    def __init__(self, node: "_Node", number: int, on_message: OnMessage, on_lost: OnLost) -> None:
        self._node, self._number = node, number
        self._on_message, self._on_lost = on_message, on_lost
        self._stopping = False
        self._ended = asyncio.Event()

    def send(self, message: ToWorker | wire.KillWorker | wire.AbortWorker) -> None:
        """Queue a message; never blocks. What is sent to a worker that has ended is lost."""
        if not self._ended.is_set():
            self._node.write(message, self._number)

    def kill(self) -> None:
        """End the process now, if it still runs."""
        self.send(wire.KillWorker())

    def abort(self) -> None:
        """Make the process write its stacks to its node's log and end."""
        self.send(wire.AbortWorker())

    async def stop(self) -> None:
        """Ask the worker to leave and return once its node says that it is gone. Idempotent."""
        self._stopping = True
        self.send(Shutdown())
        try:
            async with asyncio.timeout(STOP_S):
                await self._ended.wait()
        except TimeoutError:
            self.kill()
            self.ended("")

    def receive(self, message: FromWorker) -> None:
        """Take a message of the worker."""
        if not self._ended.is_set():
            self._on_message(message)

    def ended(self, sentence: str) -> None:
        """The worker is gone; tell so once, unless it was asked to leave."""
        if not self._ended.is_set():
            self._ended.set()
            self._node.workers.pop(self._number, None)
            if not self._stopping:
                self._on_lost(sentence)


class _Node:
    """One node that has joined, until its connection ends; then ``is_lost`` for good."""

    def __init__(self, hello: wire.Hello, writer: asyncio.StreamWriter, visit: "asyncio.Task[None]") -> None:
        self.rank, self.devices = hello.node_rank, hello.devices
        self.address: str = writer.get_extra_info("peername")[0]
        self.visit = visit
        """Ends with the connection."""
        self.workers: dict[int, RemoteWorker] = {}
        self.heard = asyncio.Event()
        """Set at each frame."""
        self.is_lost = False
        self._writer = writer
        self._clock = ClockOfNode()
        self._num_workers = 0

    def open_worker(self, device: str, on_message: OnMessage, on_lost: OnLost) -> RemoteWorker:
        """Start a worker. Numbers are never used again, so that an ended worker's last words reach no other."""
        self._num_workers += 1
        handle = self.workers[self._num_workers] = RemoteWorker(self, self._num_workers, on_message, on_lost)
        if self.is_lost:
            asyncio.get_running_loop().call_soon(handle.ended, self.loss)
        self.write(wire.StartWorker(device=device), self._num_workers)
        return handle

    @property
    def loss(self) -> str:
        """The sentence for a lost node."""
        return f"node {self.rank} at {self.address} was lost"

    def write(self, message: wire.Message, worker: int = wire.NODE) -> None:
        """Queue a message; never blocks."""
        wire.write(self._writer, message, worker)

    def receive(self, worker: int, message: wire.Message) -> None:
        """Take a frame. Its worker may have ended here while it was on the way."""
        self.heard.set()
        handle = self.workers.get(worker)
        if handle is None:
            return
        if isinstance(message, wire.WorkerEnded):
            handle.ended(f"node {self.rank}: {message.sentence}")
        elif isinstance(message, FromWorker):
            handle.receive(self._clock.on_ours(message))

    def lose(self) -> None:
        """Cut the connection and tell every handle. Idempotent."""
        self.is_lost = True
        self._writer.transport.abort()
        for handle in list(self.workers.values()):
            handle.ended(self.loss)


class NodeHub:
    """The devices of all nodes of an engine, on the front's loop."""

    def __init__(self, config: EngineConfig) -> None:
        """The engine must have nodes, and this must be node 0."""
        assert config.nodes is not None and config.nodes.rank == 0
        self._config, self._nodes = config, config.nodes
        self._hello = hello_of(config)
        self._known: dict[int, _Node] = {}
        """By rank, the node that had it last."""
        self._somebody_joined = asyncio.Event()
        self._visits: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._stopping = False

    async def start(self) -> None:
        """Listen for nodes at all interfaces. Raises ``StartError`` if the port is taken."""
        port = self._nodes.control_port
        try:
            self._server = await asyncio.start_server(self._visited, host=None, port=port)
        except OSError as error:
            raise StartError(
                f"cannot listen on port {port} for the other nodes: {os.strerror(error.errno or 0)}; "
                "choose another --master-port (it takes that port and the next)"
            ) from None

    async def wait_nodes(self) -> tuple[tuple[int, str], ...]:
        """Wait until all nodes are joined. Returns (node rank, device) of every device, in node order.

        Raises:
            StartError: a node has not joined within ``start_timeout_s``; names the missing ones.
        """
        await prepare_workers(self._config)
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                while self._missing:
                    self._somebody_joined.clear()
                    await self._somebody_joined.wait()
        except TimeoutError:
            missing = ", ".join(f"node {rank}" for rank in self._missing)
            raise StartError(
                f"{missing} of {self._nodes.num_nodes} did not join at port {self._nodes.control_port} "
                f"within {self._config.start_timeout_s:g} s"
            ) from None
        own = [(0, device) for device in self._config.devices]
        others = [(rank, device) for rank, node in sorted(self._known.items()) for device in node.devices]
        return (*own, *others)

    def open_worker(self, node_rank: int, device: str, on_message: OnMessage, on_lost: OnLost) -> WorkerHandle:
        """Start a worker on a device that ``wait_nodes`` named, on this node or another.

        ``on_lost`` is called once, with a sentence, when the worker has ended without being asked to; on another node
        that includes a worker that could not be started, and a node that is lost already.
        """
        if node_rank == 0:
            return LocalWorker(self._config, device, on_message, on_lost)
        return self._known[node_rank].open_worker(device, on_message, on_lost)

    async def stop(self) -> None:
        """Send every node home and return when it has ended its workers. Stop the workers first. Idempotent."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        present = [node for node in self._known.values() if not node.is_lost]
        for node in present:
            node.write(Shutdown())
        if present:  # a node closes its connection when none of its workers is left
            await asyncio.wait([node.visit for node in present], timeout=STOP_S)
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    @property
    def _missing(self) -> list[int]:
        ranks = range(1, self._nodes.num_nodes)
        return [rank for rank in ranks if rank not in self._known or self._known[rank].is_lost]

    def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.get_running_loop().create_task(self._receive(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from hello to loss."""
        address = writer.get_extra_info("peername")[0]
        try:
            node = await self._admit(reader, writer)
            if node is not None:
                await self._attend(node, reader, writer)
        except (OSError, EOFError, ValueError) as error:
            if not self._stopping:
                logger.warning("the connection of a node at %s is over: %s", address, wire.reason(error))
            logger.debug("it ended with %r", error)
        finally:
            writer.close()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Node | None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            _, hello = await wire.read(reader, HELLO_BYTES)
        if not isinstance(hello, wire.Hello):
            raise ValueError(f"it begins with {type(hello).__name__}")
        sentence = objection(self._hello, hello) or await self._claimed_twice(hello)
        if sentence:
            logger.warning("refused: %s", sentence)
            wire.write(writer, wire.Refusal(sentence=sentence))
            return None
        visit = asyncio.current_task()
        assert visit is not None
        node = self._known[hello.node_rank] = _Node(hello, writer, visit)
        wire.write(writer, _welcome(self._config))
        self._somebody_joined.set()
        logger.info("node %d at %s joined with %s", node.rank, node.address, ",".join(node.devices))
        return node

    async def _claimed_twice(self, hello: wire.Hello) -> str | None:
        """An objection if the rank's holder lives. One that is cut off without knowing it loses the rank."""
        while (holder := self._known.get(hello.node_rank)) and not holder.is_lost:
            holder.heard.clear()
            try:
                async with asyncio.timeout(PROOF_OF_LIFE_S):
                    await holder.heard.wait()
            except TimeoutError:
                holder.lose()
            else:
                return f"there is a node {holder.rank} already, at {holder.address}"
        return None

    async def _attend(self, node: _Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beating = asyncio.create_task(wire.beat(writer, self._config.stage_timeout_s))
        try:
            while True:
                async with asyncio.timeout(self._config.stage_timeout_s):
                    worker, message = await wire.read(reader)
                node.receive(worker, message)
        finally:
            beating.cancel()
            node.lose()


def _welcome(config: EngineConfig) -> wire.Welcome:
    return wire.Welcome(
        max_videos=config.max_videos,
        max_segments=config.max_segments,
        stage_timeout_s=config.stage_timeout_s,
        poison_pages=config.poison_pages,
        precision=config.precision,
        dtype=config.dtype,
        text_device="auto" if config.text_device == "auto" else "cpu",
        rehearsal=config.rehearsal,
    )
