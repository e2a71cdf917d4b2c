"""The engine as its caller sees it: start, open sessions, drain, stop.

Joins the supervisor, which keeps the worker alive, and the dispatcher, which keeps it busy. Runs on one event loop,
never blocks it, and imports no torch.
"""

import secrets
import time

from engine.config import EngineConfig, Manifest
from engine.errors import EngineUnavailable, RequestError, StartError, WorkerLost
from engine.front.dispatch import Clock, Dispatcher
from engine.front.pacing import Progress
from engine.front.session import Session
from engine.front.supervisor import Supervisor
from engine.request import EngineFacts, EngineLoad, EngineState, SessionRequest

RETRY_WHILE_STARTING_S = 5.0


class Engine:
    """A model, served. Create it anywhere; use it on one event loop."""

    def __init__(self, config: EngineConfig, clock: Clock = time.monotonic) -> None:
        """``clock`` gives monotonic seconds."""
        self._config, self._clock = config, clock
        self._draining = False
        self._supervisor = Supervisor(
            config, on_message=self._receive, on_ready=self._worker_ready, on_lost=self._worker_lost
        )
        self._dispatcher = Dispatcher(config, self._supervisor.send, clock)

    async def start(self) -> None:
        """Start the worker; returns while it loads. State is ``starting``, later ``ready``."""
        self._supervisor.start()

    async def wait_ready(self) -> None:
        """Return when the model is loaded and warm.

        Raises:
            StartError: a setting, a device or a file is wrong (``WeightsError`` for weights).
        """
        await self._supervisor.wait_ready()

    async def drain(self) -> None:
        """Take no new session, end running ones at a block boundary, return when none is left."""
        self._draining = True
        self._dispatcher.drain(EngineUnavailable("the server is shutting down", RETRY_WHILE_STARTING_S, "draining"))
        await self._dispatcher.emptied()

    async def stop(self) -> None:
        """End the worker; sessions that still run end with ``WorkerLost``. Idempotent."""
        await self._supervisor.stop()
        self._dispatcher.worker_lost(WorkerLost("the server has stopped"), for_good=True)

    @property
    def state(self) -> EngineState:
        """Where the engine stands as a whole."""
        if self._draining and self._supervisor.state == EngineState.READY:
            return EngineState.DRAINING
        return self._supervisor.state

    @property
    def failure(self) -> StartError | None:
        """Why the state is ``failed``."""
        return self._supervisor.failure

    @property
    def manifest(self) -> Manifest:
        """The model."""
        return self._config.manifest

    @property
    def facts(self) -> EngineFacts | None:
        """What the worker said of itself; None until the first one is ready."""
        return self._supervisor.facts

    @property
    def load(self) -> EngineLoad:
        """How busy it is."""
        return self._dispatcher.load

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, for operators and tests."""
        return self._supervisor.worker_pid

    async def open(self, request: SessionRequest) -> Session:
        """Take a session; it may wait in the queue for pages.

        Raises:
            RequestError: the model does not make such a video; names the field.
            Overloaded: the queue is full.
            EngineUnavailable: starting, restarting, draining or failed.
        """
        self._check_serving()
        self._check_request(request)
        session = Session(
            f"s_{secrets.token_hex(12)}",
            Progress(request=request, rollout=self.manifest.rollout, opened_at=self._clock()),
            on_taken=self._dispatcher.taken,
            on_close=self._dispatcher.cancel,
            on_prompt=self._dispatcher.change_prompt,
            on_status=self._dispatcher.status,
        )
        self._dispatcher.admit(session)
        return session

    def session(self, session_id: str) -> Session:
        """A session that has not ended. Raises ``UnknownSession``."""
        return self._dispatcher.session(session_id)

    def _check_serving(self) -> None:
        match self.state:
            case EngineState.READY:
                return
            case EngineState.STARTING:
                raise EngineUnavailable("the model is loading", RETRY_WHILE_STARTING_S, "starting")
            case EngineState.DRAINING:
                raise EngineUnavailable("the server is shutting down", RETRY_WHILE_STARTING_S, "draining")
            case state:
                raise EngineUnavailable(f"the engine is {state}", RETRY_WHILE_STARTING_S)

    def _check_request(self, request: SessionRequest) -> None:
        video = self.manifest.video
        if (request.width_px, request.height_px) not in video.sizes:
            sizes = ", ".join(f"{width}x{height}" for width, height in video.sizes)
            asked = f"{request.width_px}x{request.height_px}"
            raise RequestError(f"model {self.manifest.name} makes no {asked} video; choose one of {sizes}", "size")
        if request.fps > video.max_fps:
            raise RequestError(f"fps {request.fps} is above this model's {video.max_fps}", "fps")

    def _receive(self, message: object) -> None:
        self._dispatcher.receive(message)

    def _worker_ready(self) -> None:
        self._dispatcher.worker_ready()

    def _worker_lost(self, sentence: str) -> None:
        for_good = self._supervisor.state == EngineState.FAILED
        self._dispatcher.worker_lost(WorkerLost(sentence), for_good=for_good)
