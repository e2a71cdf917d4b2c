"""The front's end of one worker: the process, its pipe, and how its death is noticed.

Messages are read and written by threads of their own, so that a worker that is stopped or slow never blocks the event
loop. Knows no video and no restart policy.
"""

import asyncio
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Any, Protocol

from engine.engine_config import EngineConfig
from engine.fleet.fork_server import fork_server
from engine.messages import FromWorker, Shutdown, ToWorker

logger = logging.getLogger(__name__)

SHUTDOWN_GRACE_S = 5.0

OnMessage = Callable[[FromWorker], None]
OnLost = Callable[[str], None]
"""Called once with a sentence, on the loop, when the worker has ended without being asked to."""


class WorkerHandle(Protocol):
    """A running worker, on this host or another. All callbacks run on the loop that made the handle."""

    @property
    def pid(self) -> int | None:
        """Process id, if it runs on this host."""
        ...

    def send(self, message: ToWorker) -> None:
        """Queue a message; never blocks."""
        ...

    def abort(self) -> None:
        """Have a hung worker print where it stands, and end it."""
        ...

    def kill(self) -> None:
        """End the process now, if it still runs."""
        ...

    async def stop(self) -> None:
        """Ask the worker to leave, and end it if it does not within the grace time. Idempotent."""
        ...


class LocalWorker:
    """The handle of a worker on this host."""

    def __init__(self, config: EngineConfig, device: str, on_message: OnMessage, on_lost: OnLost) -> None:
        """Start the process and its threads; quick after ``prepare_workers``."""
        self._loop = asyncio.get_running_loop()
        self._device, self._on_message, self._on_lost = device, on_message, on_lost
        self._stopping = False
        self._outbox: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()
        context = fork_server(config)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_enter_worker, args=(config, device, theirs), name="hiar-worker", daemon=True
        )
        self._process.start()
        theirs.close()
        for body in (self._read, self._write):
            threading.Thread(target=body, name=f"worker-{body.__name__}", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """Queue a message; never blocks."""
        self._outbox.put(message)

    async def stop(self) -> None:
        """Ask the worker to leave, and end it if it does not within the grace time. Idempotent."""
        self._stopping = True
        self.send(Shutdown())
        await asyncio.to_thread(self._process.join, SHUTDOWN_GRACE_S)
        self.kill()
        await asyncio.to_thread(self._process.join)
        self._outbox.put(None)

    def abort(self) -> None:
        """Have a hung worker print where it stands, and end it."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGABRT)

    def kill(self) -> None:
        """End the process now, if it still runs."""
        if self._process.is_alive():
            self._process.kill()

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                break
            self._call(self._on_message, message)
        self._process.join()
        self._outbox.put(None)
        if not self._stopping:
            sentence = (
                f"the worker on {self._device} (process {self.pid}) ended with exit code {self._process.exitcode}"
            )
            self._call(self._on_lost, sentence)

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._connection.send(message)
            except (BrokenPipeError, OSError):
                return  # the reader sees the same end and reports it

    def _call(self, callback: Callable[[Any], None], argument: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, argument)


def _enter_worker(config: EngineConfig, device: str, connection: Any) -> None:
    """First code of the new process; the front itself never imports torch."""
    from engine.stage.worker import run_worker  # noqa: PLC0415 - imports torch, which the front must not

    run_worker(config, device, connection)
