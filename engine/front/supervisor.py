"""Keeps a worker alive: starts it, notices its end, starts it again with growing pauses, and gives up in the end.

=============  =================================================  ===========================
state          meaning                                            next
=============  =================================================  ===========================
starting       first start: a failure is the operator's to mend   ready, failed, stopped
ready          serving                                            restarting, stopped
restarting     the worker died; another one loads                 ready, failed, stopped
failed         cannot start, or died too often                    stopped
stopped        asked to stop                                      -
=============  =================================================  ===========================

Knows no session: what a lost worker means to them is decided by whoever is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from engine.config import EngineConfig
from engine.errors import StartError, WeightsError
from engine.front.link import WorkerLink
from engine.messages import StartFailed, WorkerReady
from engine.request import EngineFacts, EngineState

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MAX_DEATHS, DEATH_SPAN_S = 5, 600.0


class Supervisor:
    """One worker and its replacements."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        on_message: Callable[[Any], None],
        on_ready: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """``on_ready`` is called for each worker that is warm, ``on_lost`` with a sentence for each that died."""
        self._config = config
        self._on_message, self._on_ready, self._on_lost = on_message, on_ready, on_lost
        self.state = EngineState.STARTING
        self.failure: StartError | None = None
        self.facts: EngineFacts | None = None
        self._link: WorkerLink | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deaths: list[float] = []
        self._settled = asyncio.Event()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the present worker."""
        return self._link.pid if self._link else None

    def start(self) -> None:
        """Start a worker; it reports when it is ready."""
        self._link = WorkerLink(self._config, self._receive, self._lost)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._config.start_timeout_s, self._start_timed_out)

    async def wait_ready(self) -> None:
        """Return once a worker is ready; raise ``StartError`` if none can start."""
        while self.state in {EngineState.STARTING, EngineState.RESTARTING}:
            self._settled.clear()
            await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    def send(self, message: Any) -> None:
        """Send to the present worker. What is sent while none is ready is lost with it."""
        if self._link is not None:
            self._link.send(message)

    async def stop(self) -> None:
        """End the worker. Idempotent."""
        self._enter(EngineState.STOPPED)
        self._cancel_timer()
        if self._link is not None:
            await self._link.stop()

    def _receive(self, message: Any) -> None:
        match message:
            case WorkerReady():
                self._cancel_timer()
                self.facts = message.facts
                self._enter(EngineState.READY)
                self._on_ready()
            case StartFailed():
                kind = WeightsError if message.code == WeightsError.code else StartError
                self._fail(kind(message.message))
            case _:
                self._on_message(message)

    def _lost(self, exit_code: int | None) -> None:
        if self.state in {EngineState.FAILED, EngineState.STOPPED}:
            return
        self._cancel_timer()
        sentence = f"the worker on {self._config.devices[0]} ended with exit code {exit_code}"
        logger.error("%s", sentence)
        if self.state == EngineState.STARTING:
            self._fail(StartError(f"{sentence} while it started"))
            return
        self._on_lost(sentence)
        self._restart_later(sentence)

    def _restart_later(self, sentence: str) -> None:
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < DEATH_SPAN_S), now]
        if len(self._deaths) > MAX_DEATHS:
            self._fail(StartError(f"{sentence}, {len(self._deaths)} times in {DEATH_SPAN_S:.0f} s; giving up"))
            return
        self._enter(EngineState.RESTARTING)
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (len(self._deaths) - 1))
        logger.warning("restarting the worker in %.0f s", pause_s)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self.start)

    def _start_timed_out(self) -> None:
        assert self._link is not None
        self._fail(StartError(f"the worker was not ready after {self._config.start_timeout_s:.0f} s"))
        self._link.kill()

    def _fail(self, failure: StartError) -> None:
        self._cancel_timer()
        self.failure = failure
        self._enter(EngineState.FAILED)
        self._on_lost(failure.message)

    def _enter(self, state: EngineState) -> None:
        self.state = state
        self._settled.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
