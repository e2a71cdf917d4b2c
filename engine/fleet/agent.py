"""The other node's side: lends its devices to the front, starting and ending workers as it is told.

The node joins, serves until the front says goodbye, and joins again whenever the front is lost. Workers never outlive
the connection they were started through: a front that returns starts a new group. Knows no video, and of messages
to workers only how to pass them on.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from engine.engine_config import EngineConfig, Nodes
from engine.errors import StartError
from engine.fleet import wire
from engine.fleet.fork_server import prepare_workers
from engine.fleet.hello import hello_of
from engine.fleet.local import LocalWorker, OnLost, OnMessage, WorkerHandle
from engine.messages import Shutdown, ToWorker

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
WELCOME_TIMEOUT_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

OpenWorker = Callable[[EngineConfig, str, OnMessage, OnLost], WorkerHandle]
"""Starts a worker on a device; ``LocalWorker`` but in tests."""


async def run_agent(
    config: EngineConfig, leave: asyncio.Event | None = None, *, open_worker: OpenWorker = LocalWorker
) -> None:
    """Lend this node's devices until the front stops, then return.

    When ``leave`` is set it returns as soon as no worker runs here: at once if idle, otherwise when the front has
    stopped them, so that running videos can end at a block. Cancelling ends the workers at once. Either way no
    process is left.

    Raises:
        StartError: the front was not reached within ``start_timeout_s``, or refuses this node.
    """
    agent = _Agent(config, open_worker)
    lending = asyncio.create_task(agent.lend())
    leaving = asyncio.create_task(agent.idle_after(leave or asyncio.Event()))
    try:
        await asyncio.wait({lending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if lending.done():
            lending.result()
    finally:
        for task in (lending, leaving):
            task.cancel()
        await asyncio.gather(lending, leaving, return_exceptions=True)


class _Agent:
    """One node's devices, lent through one connection after another."""

    def __init__(self, config: EngineConfig, open_worker: OpenWorker) -> None:
        self._config, self._open_worker = config, open_worker
        self._idle = asyncio.Event()
        self._idle.set()

    async def lend(self) -> None:
        """Join, serve, and join again after a loss; return at the front's goodbye."""
        await prepare_workers(self._config)
        deadline: float | None = asyncio.get_running_loop().time() + self._config.start_timeout_s
        while True:
            reader, writer, welcome = await _join(self._config, deadline)
            logger.info("joined node 0")
            deadline = None  # a front that was there once is waited for
            config = replace(self._config, **vars(welcome))
            if await _Visit(config, reader, writer, self._open_worker, self._idle).serve():
                logger.info("node 0 has stopped")
                return

    async def idle_after(self, leave: asyncio.Event) -> None:
        """Return when ``leave`` is set and no worker runs."""
        await leave.wait()
        await self._idle.wait()


class _Visit:
    """One connection to the front, and the workers that were started through it."""

    def __init__(
        self,
        config: EngineConfig,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_worker: OpenWorker,
        idle: asyncio.Event,
    ) -> None:
        """``idle`` is kept set while no worker runs."""
        self._config, self._reader, self._writer = config, reader, writer
        self._open_worker, self._idle = open_worker, idle
        self._workers: dict[int, WorkerHandle] = {}
        self._stops: set[asyncio.Task[None]] = set()

    async def serve(self) -> bool:
        """Do as the front says. Returns True at its goodbye, False if it is lost; no worker is left."""
        beating = asyncio.create_task(wire.beat(self._writer, self._config.stage_timeout_s))
        try:
            await self._obey()
            return True
        except (OSError, EOFError, ValueError) as error:
            logger.warning("node 0 was lost (%s); its workers here end, and this node joins again", wire.reason(error))
            logger.debug("it ended with %r", error)
            return False
        finally:
            beating.cancel()
            self._writer.close()  # first, so that the front hears of one lost node and not of each worker
            for worker in list(self._workers.values()):
                worker.kill()
            await self._stop_all()

    async def _obey(self) -> None:
        while True:
            async with asyncio.timeout(self._config.stage_timeout_s):
                number, message = await wire.read(self._reader)
            if number != wire.NODE:
                self._pass_on(number, message)
            elif isinstance(message, Shutdown):
                return await self._stop_all()

    def _pass_on(self, number: int, message: wire.Message) -> None:
        """Take a message for a worker, which may have ended while it was on the way."""
        if isinstance(message, wire.StartWorker):
            self._start(number, message.device)
        elif worker := self._workers.get(number):
            match message:
                case wire.KillWorker():
                    worker.kill()
                case wire.AbortWorker():
                    worker.abort()
                case Shutdown():
                    stop = asyncio.create_task(self._stop(number, worker))
                    self._stops.add(stop)
                    stop.add_done_callback(self._stops.discard)
                case _ if isinstance(message, ToWorker):
                    worker.send(message)

    def _start(self, number: int, device: str) -> None:
        if device not in self._config.devices:
            self._ended(number, f"device {device} is not lent")
            return
        try:
            worker = self._open_worker(
                self._config,
                device,
                lambda message: wire.write(self._writer, message, number),
                lambda sentence: self._ended(number, sentence),
            )
        except OSError as error:
            self._ended(number, f"the worker on {device} did not start: {error}")
            return
        self._workers[number] = worker
        self._idle.clear()

    async def _stop(self, number: int, worker: WorkerHandle) -> None:
        await worker.stop()
        self._ended(number, "the worker has left")

    async def _stop_all(self) -> None:
        await asyncio.gather(*self._stops, *(self._stop(*item) for item in self._workers.items()))

    def _ended(self, number: int, sentence: str) -> None:
        self._workers.pop(number, None)
        wire.write(self._writer, wire.WorkerEnded(sentence=sentence), number)
        if not self._workers:
            self._idle.set()


async def _join(
    config: EngineConfig, deadline: float | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, wire.Welcome]:
    """Say hello until the front answers. Raises ``StartError`` at the deadline (loop time), or when it refuses."""
    assert config.nodes is not None and config.nodes.rank > 0
    nodes, pause_s, reason = config.nodes, FIRST_PAUSE_S, "no answer"
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                try:
                    return await _say_hello(nodes, hello_of(config))
                except (OSError, EOFError, ValueError) as error:
                    reason = wire.reason(error)
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
    except TimeoutError:
        raise StartError(
            f"node {nodes.rank} did not reach node 0 at {nodes.master_addr}:{nodes.control_port} "
            f"within {config.start_timeout_s:g} s: {reason}"
        ) from None


async def _say_hello(
    nodes: Nodes, hello: wire.Hello
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, wire.Welcome]:
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(nodes.master_addr, nodes.control_port)
    with ExitStack() as failing:
        failing.callback(writer.close)
        wire.write(writer, hello)
        async with asyncio.timeout(WELCOME_TIMEOUT_S):
            _, answer = await wire.read(reader)
        if isinstance(answer, wire.Refusal):
            raise StartError(f"node 0 refuses this node: {answer.sentence}")
        if not isinstance(answer, wire.Welcome):
            raise ValueError(f"it answers with {type(answer).__name__}")
        failing.pop_all()
    return reader, writer, answer
