"""The engine as its caller sees it: start, open videos, drain, stop.

Joins the fleet, which keeps a worker group alive, and the desk, which keeps it busy. Runs on one event loop,
never blocks it, and imports no torch.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from engine.config import LATENT_STRIDE_PX, Manifest
from engine.engine_config import EngineConfig
from engine.errors import EngineStopped, EngineUnavailable, ModelChanged, RequestError, WorkerLost
from engine.fleet.fit import settled
from engine.fleet.supervisor import Supervisor
from engine.front.handle import VideoHandle
from engine.front.kept import KeptVideo, PastVideo
from engine.front.shell import Clock, Shell, Workers
from engine.law.schedule import frames_before_block, latent_frames_in_block, most_start_blocks
from engine.messages import ForFront
from engine.observe import Observer
from engine.request import EngineFacts, EngineLoad, EngineState, FleetView, Pixels, VideoRequest

RETRY_S = 5.0
"""After which to ask again an engine that takes no new work."""


async def run_agent(config: EngineConfig, leave: asyncio.Event | None = None) -> None:
    """Lend this host's devices to the front on another (``config.nodes``) until that stops.

    When ``leave`` is set it returns as soon as the front has stopped the workers here. Cancelling ends them at once.

    Raises:
        StartError: the front cannot be reached or refuses this node.
    """
    from engine.fleet.agent import run_agent as run  # noqa: PLC0415 - needs pydantic; one host does not

    await run(config, leave)


class Fleet(Workers, Protocol):
    """The workers as the engine needs them: one group at a time, and replacements for those that are lost."""

    async def start(self) -> None:
        """Start a group; may return while it loads. Raises ``StartError``."""
        ...

    async def wait_ready(self) -> None:
        """Return once a group serves. Raises ``StartError`` if none can start."""
        ...

    async def stop(self) -> None:
        """End all workers. Idempotent."""
        ...

    def view(self) -> FleetView:
        """The workers now."""
        ...


class MakeFleet(Protocol):
    """How an engine gets its fleet."""

    def __call__(
        self,
        config: EngineConfig,
        observer: Observer,
        *,
        on_message: Callable[[int, ForFront], None],
        on_ready: Callable[[EngineFacts], None],
        on_lost: Callable[[str, frozenset[str]], None],
    ) -> Fleet:
        """Make one that has not started; ``Supervisor`` says what it calls when."""
        ...


class Engine:
    """A model, served. Create it anywhere; use it on one event loop."""

    def __init__(
        self,
        config: EngineConfig,
        clock: Clock = time.monotonic,
        observer: Observer | None = None,
        make_fleet: MakeFleet = Supervisor,
    ) -> None:
        """Start nothing yet.

        Args:
            config: model, devices and limits.
            clock: gives monotonic seconds.
            observer: is told of what happens.
            make_fleet: makes the workers; tests have some that need no process.
        """
        config = settled(config)
        self._config, self._clock = config, clock
        observer = observer or Observer()
        self._draining = False
        self._fleet = make_fleet(
            config, observer, on_message=self._receive, on_ready=self._group_ready, on_lost=self._group_lost
        )
        self._shell = Shell(config, self._fleet, clock, observer)

    async def start(self) -> None:
        """Start the workers; returns while they load. State is ``starting``, later ``ready``.

        Raises:
            StartError: a port for the other nodes is taken.
        """
        await self._fleet.start()

    async def wait_ready(self) -> None:
        """Return when the model is loaded and warm.

        Raises:
            StartError: a setting, a device or a file is wrong (``WeightsError`` for weights).
        """
        await self._fleet.wait_ready()

    async def drain(self) -> None:
        """Take no new video, end running ones at a block boundary, return when none is left."""
        self._draining = True
        await self._shell.drain(_unavailable(EngineState.DRAINING))

    async def stop(self) -> None:
        """End the workers; videos that still run end with ``EngineStopped``. Idempotent."""
        await self._fleet.stop()
        self._shell.group_lost(EngineStopped("the server has stopped"), frozenset(), for_good=True)

    @property
    def state(self) -> EngineState:
        """Where the engine stands as a whole."""
        state = self.fleet.state
        return EngineState.DRAINING if self._draining and state == EngineState.READY else state

    @property
    def fleet(self) -> FleetView:
        """The workers now."""
        return self._fleet.view()

    @property
    def manifest(self) -> Manifest:
        """The model."""
        return self._config.manifest

    @property
    def why_no_pictures(self) -> str | None:
        """Why no video can start from a picture, for people; None if it can, or if that is not known yet."""
        facts = self.fleet.facts
        if facts is None or facts.takes_pictures:
            return None
        return f"{self.manifest.name} has no encoder for pictures, so its videos start from a prompt alone"

    @property
    def most_start_frames(self) -> int:
        """Frames of a clip that a video can start from: its last ones."""
        rollout = self.manifest.rollout
        return frames_before_block(rollout, most_start_blocks(rollout))

    @property
    def load(self) -> EngineLoad:
        """How busy it is."""
        fleet, count = self.fleet, self._shell.census()
        facts = fleet.facts
        chains = len(facts.plan.chains) if facts else 1
        return EngineLoad(
            running=count.running,
            waiting=count.waiting,
            readers=count.readers,
            slots=self._config.max_videos * chains,
            pages_used=fleet.pages_used,
            num_pages=facts.num_pages if facts else 0,
            restarts=len(fleet.recovery_times_s),
            blocks_buffered=count.blocks_buffered,
        )

    def count_stalls(self) -> None:
        """Tell the observer of pictures that stand still now, before numbers are read that come from it."""
        self._shell.count_stalls()

    async def open(
        self, request: VideoRequest, linger_s: float | None = 0.0, *, keep: Callable[[str], KeptVideo] | None = None
    ) -> VideoHandle:
        """Take a video; it may wait in the queue for pages.

        Args:
            request: what to make.
            linger_s: how long it lives on when its last reader has left; None needs no reader at all.
            keep: gets the id of the video once there is room for it and before it is queued; what it raises is raised.

        Raises:
            RequestError: the model does not make such a video; names the field.
            Overloaded: the queue is full.
            EngineUnavailable: in any state but ready.
        """
        self.check(request)
        self._require_ready()
        return self._shell.open(request, linger_s, keep)

    def require_room(self, request: VideoRequest) -> None:
        """Raise ``Overloaded`` or ``EngineUnavailable`` where ``open`` would: before pixels of a video are made."""
        self._require_ready()
        self._shell.desk.require_room(request)

    def _require_ready(self) -> None:
        if self.state != EngineState.READY:
            raise _unavailable(self.state)

    def restore(self, past: PastVideo, kept: KeptVideo) -> VideoHandle:
        """Go on with a video of an earlier life of the server, behind what was stored of it; it needs no reader.

        Its log can be read at once. It waits for workers in the queue, also while the model loads, and is made again
        from its first block: none that is stored is added again. One that is whole ends at once, and one that the
        model does not make any more fails with ``ModelChanged``.

        Raises:
            EngineUnavailable: the engine is draining, stopped or failed.
        """
        if self.state in {EngineState.DRAINING, EngineState.FAILED, EngineState.STOPPED}:
            raise _unavailable(self.state)
        return self._shell.restore(past, kept, self._change_since(past))

    def check(self, request: VideoRequest) -> None:
        """Raise ``RequestError`` that names the field where the model does not make such a video."""
        video = self.manifest.video
        if (request.width_px, request.height_px) not in video.sizes:
            asked, offered = f"{request.width_px}x{request.height_px}", " or ".join(video.size_names)
            raise RequestError(f"size: {asked} is not offered; choose {offered}", "size")
        if request.fps > video.max_fps:
            raise RequestError(f"fps: {request.fps} is above {video.max_fps}, the highest of this model", "fps")
        if request.start is not None:
            self._check_start(request, request.start)
        for block, latents in enumerate(request.initial):
            num_frames = latent_frames_in_block(self.manifest.rollout, block)
            size = request.height_px // LATENT_STRIDE_PX, request.width_px // LATENT_STRIDE_PX
            needed = (num_frames, self.manifest.transformer.in_dim, *size)
            if latents.shape != needed:
                raise RequestError(f"initial: block {block} is {latents.shape}, needed {needed}", "initial")

    def video(self, video_id: str) -> VideoHandle:
        """A video that runs, waits, or ended and is kept. Raises ``UnknownVideo``."""
        return self._shell.video(video_id)

    @property
    def videos(self) -> tuple[VideoHandle, ...]:
        """All of them, the oldest first."""
        return self._shell.videos

    def _check_start(self, request: VideoRequest, start: Pixels) -> None:
        if self.why_no_pictures is not None:
            raise RequestError(f"start: {self.why_no_pictures}", "start")
        if not start.data:
            raise RequestError("start: the picture that this video was to start from is not kept any more", "start")
        size, needed = (start.width_px, start.height_px), (request.width_px, request.height_px)
        if size != needed:
            raise RequestError(f"start: the pictures are {size}, needed {needed}", "start")

    def _change_since(self, past: PastVideo) -> ModelChanged | None:
        """Why the model does not make a past video any more; None if it does."""
        if past.model != self.manifest.name:
            return ModelChanged(f"the video was made by the model {past.model}; {self.manifest.name} is served now")
        try:
            self.check(past.request)
        except RequestError as error:
            return ModelChanged(f"the model that is served now does not make this video: {error.message}")
        return None

    def _receive(self, rank: int, message: ForFront) -> None:
        self._shell.receive(rank, message)

    def _group_ready(self, facts: EngineFacts) -> None:
        self._shell.serve(facts.plan)

    def _group_lost(self, sentence: str, suspects: frozenset[str]) -> None:
        for_good = self.fleet.state == EngineState.FAILED
        error = EngineStopped(sentence) if for_good else WorkerLost(sentence)
        self._shell.group_lost(error, suspects, for_good=for_good)


def _unavailable(state: EngineState) -> EngineUnavailable:
    """The refusal of new work in ``state``, any but ready."""
    reasons = {EngineState.STARTING: "the model is loading", EngineState.DRAINING: "the server is shutting down"}
    return EngineUnavailable(reasons.get(state, f"the engine is {state}"), RETRY_S, state.value)
