"""The worker process: one device, one placement of the plan, one pipe to the front.

Its life: open the device; measure what passes cost, if asked; take a placement of the plan, load what it needs and
meet the others; then serve: take what came, run one forward, repeat. The front owns this process: when the pipe closes,
it exits at once.
"""

import faulthandler
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from engine.engine_config import EngineConfig
from engine.errors import HiarError, StartOutOfMemory
from engine.law.memory import Share, has_room_for_encoder
from engine.law.placement import Placement
from engine.messages import (
    Assign,
    CostsMeasured,
    FromWorker,
    MeasureCosts,
    Shutdown,
    StartFailed,
    ToWorker,
    WorkerFacts,
    WorkerReady,
)
from engine.model.decoder import Decoder
from engine.model.dit import CausalWan
from engine.stage import build
from engine.stage.handover import join
from engine.stage.lane import Lane
from engine.stage.memory import describe
from engine.stage.network import Network
from engine.stage.pictures import PictureEncoding
from engine.stage.progress import Progress
from engine.stage.rigs import rig_of
from engine.stage.tether import end_with_parent
from kernels.attention.choice import UNTRIED

logger = logging.getLogger(__name__)

IDLE_BEAT_S = 1.0
"""A worker that waits says so this often."""

Send = Callable[[FromWorker], None]


@dataclass(frozen=True)
class LatentsArrived:
    """Put into the inbox by the inlet: the next block's latents."""

    latents_FCYX: Tensor


Message = ToWorker | LatentsArrived
Inbox = queue.SimpleQueue[Message]


def run_worker(config: EngineConfig, device: str, connection: Connection) -> None:
    """Entry point of the process. Returns when told to shut down or when the worker cannot start."""
    _tie_to_parent()
    inbox = _read_in_background(connection)
    send = _sender(connection)
    with torch.inference_mode():
        try:
            worker = Worker(config, device, send, inbox)
            send(worker.opened)
            lane = worker.start()
        except HiarError as error:
            send(StartFailed(code=error.code, message=error.message))
            return
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            message = f"{device} ran out of memory while it started: {reason}"
            send(StartFailed(code=StartOutOfMemory.code, message=message))
            return
        if lane is not None:
            serve(lane, inbox)


class Worker:
    """A worker before it serves."""

    def __init__(self, config: EngineConfig, device: str, send: Send, inbox: Inbox) -> None:
        """Choose the rig and open the device. Raises ``StartError``."""
        build.set_num_threads(config)
        self._config, self._send, self._inbox = config, send, inbox
        self._rig = rig_of(config)
        self.device = build.open_device(device)
        self.opened = describe(self.device)
        """What there was before it loaded anything."""
        self._progress = Progress(send)
        self._captures = build.captures_on(self.device)
        self._attention = UNTRIED
        self._model: Network | None = None
        self._decoder: Decoder | None = None

    def start(self) -> Lane | None:
        """Follow the front until this worker has its placement; None when told to shut down before that.

        Raises:
            StartError: a file, the memory or the meeting with the others is at fault.
        """
        while True:
            match self._inbox.get():
                case MeasureCosts():
                    self._send(self._measure())
                case Assign() as assignment:
                    return self._take_placement(assignment)
                case Shutdown():
                    return None
                case message:
                    raise AssertionError(f"{message} came before the worker had its placement")

    def _measure(self) -> CostsMeasured:
        device, progress = self.device, self._progress
        began_s = time.monotonic()
        self._model = self._load_transformer(())
        self._decoder = self._rig.decoder(device, progress)
        loaded_s = time.monotonic()
        found = self._rig.costs(device, self._model, self._decoder, progress)
        return CostsMeasured(costs=found, load_s=loaded_s - began_s)

    def _load_transformer(self, attentions: tuple[str, ...]) -> Network:
        """The network, without graphs; as long as it measures, windows are full."""
        model = self._rig.network(self.device, self._progress)
        if isinstance(model, CausalWan) and self._captures is not None:
            self._attention = build.attention_on(self._config, self.device, attentions)
            model.attention = self._attention.full
        return model

    def _take_placement(self, assignment: Assign) -> Lane:
        placement = assignment.plan.placements[assignment.rank]
        lane = self._make_lane(placement, assignment.attentions)
        if self._captures is not None:
            self._captures.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what captures and trials left; from here on nothing may stop the device
        if len(assignment.plan.placements) > 1:
            join(assignment.rendezvous, placement.rank, len(assignment.plan.placements), self.device)
            lane.connect(lambda latents: self._inbox.put(LatentsArrived(latents)))
        self._send(WorkerReady(facts=self._facts(placement, lane)))
        return lane

    def _make_lane(self, placement: Placement, attentions: tuple[str, ...]) -> Lane:
        """Load what the placement needs, and let go of what was only measured."""
        config, device, progress = self._config, self.device, self._progress
        model, network = self._model, self._decoder
        self._model = self._decoder = None
        if placement.stages:
            model = model or self._load_transformer(attentions)
            model = build.replayed(config, model, self._attention, placement.stages, self._captures)
        else:
            model = None
        network = (network or self._rig.decoder(device, progress)) if placement.decodes else None
        before = None
        if placement.part is not None:
            assert network is not None, "a plan has parts of a decoder that is there"
            network = self._rig.part_of(network, placement.part)
            before = None if placement.part.is_first else self._rig.decoder_units[placement.part.begin - 1]
        return Lane(
            config,
            placement,
            device,
            rig=self._rig,
            model=model,
            decoder=build.replayed_decoder(config, network, device, self._captures, before),
            prompts=self._load_prompts(placement),
            pictures=self._load_pictures(placement),
            progress=progress,
            send=self._send,
        )

    def _load_prompts(self, placement: Placement) -> build.Prompts | None:
        if not placement.embeds_text:
            return None
        device = torch.device("cpu") if placement.text_on_host else self.device
        return self._rig.prompts(device, self._progress)

    def _load_pictures(self, placement: Placement) -> PictureEncoding | None:
        """Beside the text encoder, but in the host's memory where the plan leaves no room on the device."""
        if not placement.embeds_text:
            return None
        share = Share.of(placement)
        on_host = placement.text_on_host or not has_room_for_encoder(self._config, share, self.opened.free_bytes)
        device = torch.device("cpu") if on_host else self.device
        encoder = self._rig.encoder(device, self._progress)
        if encoder is None:
            return None
        return PictureEncoding(encoder, self._config.manifest.rollout, device, self._send)

    def _facts(self, placement: Placement, lane: Lane) -> WorkerFacts:
        return WorkerFacts(
            device_name=build.device_name(self.device),
            num_pages=lane.num_pages,
            page_bytes=lane.page_bytes,
            attention=lane.attention,
            attentions=self._attention.sound,
            dtype=str(build.dtype_on(self._config, self.device)).removeprefix("torch."),
            encoder="libx264" if placement.encodes else None,
            codecs=build.default_codecs(self._config) if placement.encodes else None,
            takes_pictures=lane.takes_pictures,
            memory=lane.memory_use(),
        )


def serve(lane: Lane, inbox: Inbox) -> None:
    """Work until told to shut down."""
    busy = False
    while True:
        for message in _waiting(inbox) if busy else _await_some(inbox, lane):
            match message:
                case Shutdown():
                    return
                case LatentsArrived():
                    lane.receive(message.latents_FCYX)
                case MeasureCosts() | Assign():
                    raise AssertionError(f"{message} came to a worker that serves")
                case _:
                    lane.accept(message)
        busy = lane.work()


def _sender(connection: Connection) -> Send:
    """A ``send`` that threads may share. A front that is gone ends this process through the reader."""
    lock = threading.Lock()

    def send(message: FromWorker) -> None:
        with lock:
            try:
                connection.send(message)
            except (BrokenPipeError, ConnectionResetError):
                os._exit(1)

    return send


def _tie_to_parent() -> None:
    """Die with the front, and leave Ctrl-C and SIGTERM to it (spec, operations 1.4)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    end_with_parent()


def _read_in_background(connection: Connection) -> Inbox:
    """Queue what the front sends; when the front is gone, so is this process, whatever the main thread does."""
    inbox: Inbox = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                inbox.put(connection.recv())
            except (EOFError, OSError):
                os._exit(1)

    threading.Thread(target=read, name="front-reader", daemon=True).start()
    return inbox


def _await_some(inbox: Inbox, lane: Lane) -> list[Message]:
    """Everything that waits in the inbox, at least one message; until it comes, signs of life are sent."""
    while True:
        began_s = time.monotonic()
        try:
            message = inbox.get(timeout=IDLE_BEAT_S)
        except queue.Empty:
            lane.rested(time.monotonic() - began_s)
            lane.tell_idle()
            continue
        lane.rested(time.monotonic() - began_s)
        return [message, *_waiting(inbox)]


def _waiting(inbox: Inbox) -> list[Message]:
    """Everything that waits in the inbox."""
    messages = []
    while not inbox.empty():
        messages.append(inbox.get_nowait())
    return messages
