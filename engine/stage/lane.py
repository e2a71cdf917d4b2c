"""One worker's lane, its stretch of the chain: tickets and latents come in, passes run, latents or fragments go out.

Every ticket of the chain comes here from the front. A block ticket waits for its latents, if another worker computes
the stages before; the tickets behind it wait with it, so that every stage executes them in one order (design, law 2).
Knows no process and no pipe.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import logging
import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from engine.engine_config import EngineConfig
from engine.errors import VideoFailed
from engine.law.placement import Placement
from engine.media.decode import DecodeStage
from engine.media.part import PartStage
from engine.messages import (
    Beat,
    BlockTicket,
    Cancel,
    CloseTicket,
    ContextTicket,
    EncodePixels,
    EncodePrompt,
    FromWorker,
    Idle,
    MemoryUse,
    OpenTicket,
    PromptEncoded,
    PromptFailed,
    PromptTicket,
    Question,
    RestoreTicket,
    Ticket,
    VideoClosed,
    WorkBegins,
)
from engine.model.confined import confined
from engine.model.decoder import Decoder
from engine.model.graphs import GraphedWan
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.stage import build
from engine.stage.ends import ends_of
from engine.stage.handover import Inlet, Outlet, Shape
from engine.stage.memory import memory_use
from engine.stage.network import Network
from engine.stage.pictures import PictureEncoding
from engine.stage.progress import Progress
from engine.stage.rehearsal import Faults
from engine.stage.rigs import Rig
from engine.stage.runner import Runner
from engine.stage.warm import warm_forwards, warm_pictures
from engine.trace import Phase, Timer

logger = logging.getLogger(__name__)


class Lane:
    """Some adjacent stages of the chain, on one device."""

    def __init__(
        self,
        config: EngineConfig,
        placement: Placement,
        device: torch.device,
        *,
        rig: Rig,
        model: Network | None,
        decoder: Decoder | None,
        prompts: build.Prompts | None,
        pictures: PictureEncoding | None = None,
        progress: Progress,
        send: Callable[[FromWorker], None],
    ) -> None:
        """Allocate what the placement needs, and capture its forwards. ``send`` must be thread-safe.

        Raises:
            StartError: there is no room for pages.
        """
        self._config, self._placement, self._device, self._send = config, placement, device, send
        self._prompts, self._model, self._decoder = prompts, model, decoder
        self._pictures = pictures
        self._timer = Timer(placement.rank)
        self._pool = build.pages(config, device, placement.stages, rig.page_layers)
        self.attention = build.attention_name(model)
        if isinstance(model, GraphedWan):
            warm_forwards(config, model, self._pool, placement.stages, progress)
        if decoder is not None and placement.encodes and device.type == "cuda":
            warm_pictures(config, device)
        self._runner = self._make_runner(model, rig) if model is not None else None
        self._decode: DecodeStage | None = None
        self._part: PartStage | None = None
        if placement.decodes and not placement.encodes:
            assert decoder is not None, "what is cut is there"
            self._part = PartStage(decoder, send, self._timer)
        elif placement.decodes:
            self._decode = DecodeStage(decoder, lambda ticket: build.open_encoder(config, ticket), send, self._timer)
        self._questions: queue.SimpleQueue[EncodePrompt] = queue.SimpleQueue()
        if placement.text_on_host:
            threading.Thread(target=self._answer_in_turn, name="text", daemon=True).start()
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._tickets: deque[tuple[Ticket, bool]] = deque()
        """Each with whether a tensor of the worker before comes with it."""
        self._arrived: deque[Tensor] = deque()
        self._in, self._out = ends_of(config, placement.part, rig.decoder_units)
        self._opened: set[str] = set()
        """Videos from their open ticket until their close ticket passed."""
        self._dropped: set[str] = set()
        self._num_passed = 0

    @property
    def takes_pictures(self) -> bool:
        """Whether videos can start from pictures here."""
        return self._pictures is not None

    @property
    def num_pages(self) -> int:
        """Pages of the pool."""
        return self._pool.num_pages

    @property
    def page_bytes(self) -> int:
        """Bytes of a page."""
        return self._pool.page_bytes

    def memory_use(self) -> MemoryUse:
        """What all this takes; call it before the first ticket."""
        encoder = self._prompts.module if self._prompts is not None else None
        return memory_use(self._device, model=self._model, decoder=self._decoder, text_encoder=encoder, pool=self._pool)

    def connect(self, arrived: Callable[[Tensor], None]) -> None:
        """Open the hand-over with the neighbours, once the group has met, and greet them: no viewer waits for it then.

        Blocks until the neighbours do so too. ``arrived`` is called by a thread.

        Raises:
            StartError: a neighbour does not answer, or another one than the plan names does.
        """
        placement, dtype = self._placement, build.dtype_on(self._config, self._device)
        if placement.previous is not None:
            self._inlet = Inlet(placement.previous, self._device, dtype, arrived, self._timer)
        if placement.next is not None:
            self._outlet = Outlet(placement.next, self._device, self._timer)
        for end in (self._inlet, self._outlet):
            if end is not None:
                end.await_neighbour()

    def accept(self, message: Ticket | Question | Cancel) -> None:
        """Take a message of the front."""
        match message:
            case EncodePrompt():
                self._embed(message)
            case EncodePixels():
                assert self._pictures is not None, "a picture came to a worker without an encoder"
                self._pictures.ask(message)
            case Cancel():
                self._cancel(message.video)
            case _:
                self._line_up(message)

    def receive(self, latents_FCYX: Tensor) -> None:
        """Take the latents of the oldest block ticket that has none yet."""
        self._arrived.append(latents_FCYX)

    def work(self) -> bool:
        """Run at most one forward; returns whether there may be more to do."""
        passed_before = self._num_passed
        self._advance()
        ran = self._runner.tick() if self._runner is not None else False
        if ran or self._num_passed > passed_before:
            self._send(self._beat())
        return ran

    def rested(self, seconds: float) -> None:
        """The compute thread had nothing it could do for so long."""
        if self._tickets:
            self._timer.rest(input_s=seconds)
        else:
            self._timer.rest(none_s=seconds)

    def tell_idle(self) -> None:
        """Say that this worker lives, and what its other threads did."""
        self._send(Idle(spans=self._timer.take(), rests=self._timer.take_rests()))

    def _beat(self) -> Beat:
        return Beat(
            tickets_passed=self._num_passed,
            pages_used=self._pool.num_used,
            spans=self._timer.take(),
            rests=self._timer.take_rests(),
        )

    # --- tickets in ---

    def _line_up(self, ticket: Ticket) -> None:
        shape = None
        match ticket:
            case OpenTicket():
                self._opened.add(ticket.video)
                self._in.open(ticket)
            case CloseTicket():
                self._in.close(ticket.video)
            case BlockTicket() | RestoreTicket() if self._inlet is not None:
                shape = self._in.shape_of(ticket)
                if shape is not None:
                    self._inlet.expect(ticket, shape)
        self._tickets.append((ticket, shape is not None))

    def _advance(self) -> None:
        """Let tickets into the first local stage, up to the first block whose latents are still to come."""
        while self._tickets:
            (ticket, is_carrier), latents = self._tickets[0], None
            if is_carrier:
                if not self._arrived:
                    return
                latents = self._arrived.popleft()
            self._tickets.popleft()
            if self._runner is not None:
                self._runner.submit(ticket, latents)
            else:
                self._deliver(ticket, latents)

    def _cancel(self, video: str) -> None:
        if video in self._opened:
            self._dropped.add(video)
            if self._runner is not None:
                self._runner.cancel(video)

    def _embed(self, question: EncodePrompt) -> None:
        """On the host's CPU it takes seconds, in which passes go on: a thread of its own does it, in order."""
        if self._placement.text_on_host:
            self._questions.put(question)
        else:
            self._answer(question)

    def _answer(self, question: EncodePrompt) -> None:
        assert self._prompts is not None, "a prompt came to a worker without a text encoder"
        device = torch.device("cpu") if self._placement.text_on_host else self._device
        try:
            with self._timer.timed(Phase.TEXT, "", -1), confined("embedding a prompt", device):
                embedding = to_bytes(self._prompts.embed(question.text))
        except VideoFailed as failure:
            logger.error("a prompt is refused: %s", failure.message, exc_info=failure.__cause__)
            self._send(PromptFailed(request=question.request, code=failure.code, message=failure.message))
        else:
            self._send(PromptEncoded(request=question.request, embedding=embedding))

    def _answer_in_turn(self) -> None:
        try:
            with torch.inference_mode():
                while True:
                    self._answer(self._questions.get())
        finally:  # only what nobody foresaw leads here; a dead worker is seen at once, a silent one is not
            traceback.print_exc()
            os._exit(1)

    # --- tickets out ---

    def _deliver(self, ticket: Ticket, latents_FCYX: Tensor | None) -> None:
        """The end of the denoise stages: through a part of the decoder and to the next worker, or to the last stage."""
        if self._part is not None:
            latents_FCYX = self._through_part(self._part, ticket, latents_FCYX)
        if self._outlet is not None:
            self._hand_over(self._outlet, ticket, latents_FCYX)
        if self._decode is not None:
            self._decode_ticket(self._decode, ticket, latents_FCYX)
        elif isinstance(ticket, CloseTicket):
            self._closed(ticket.video)
        if isinstance(ticket, CloseTicket):
            self._opened.discard(ticket.video)
            self._dropped.discard(ticket.video)
        self._num_passed += 1

    def _through_part(self, part: PartStage, ticket: Ticket, x_TCYX: Tensor | None) -> Tensor | None:
        match ticket:
            case OpenTicket():
                part.open(ticket)
            case BlockTicket() | RestoreTicket():
                x_TCYX = self._known(ticket) if isinstance(ticket, RestoreTicket) and x_TCYX is None else x_TCYX
                if x_TCYX is not None and ticket.video not in self._dropped:
                    self._send(WorkBegins(videos=(ticket.video,)))
                    return part.push(ticket.video, ticket.block, x_TCYX.to(self._device))
            case CloseTicket():
                part.close(ticket.video)
        return None

    def _hand_over(self, outlet: Outlet, ticket: Ticket, x_TCYX: Tensor | None) -> None:
        match ticket:
            case OpenTicket():
                self._out.open(ticket)
            case CloseTicket():
                self._out.close(ticket.video)
            case BlockTicket() | RestoreTicket():
                shape = self._out.shape_of(ticket)
                if shape is not None:
                    outlet.send(ticket, self._void(shape) if x_TCYX is None else x_TCYX)

    def _known(self, ticket: RestoreTicket) -> Tensor:
        """What the last denoise stage made of a known block."""
        return to_tensor(dict(ticket.latents)[self._config.manifest.rollout.num_stages - 1])

    def _decode_ticket(self, decode: DecodeStage, ticket: Ticket, latents_FCYX: Tensor | None) -> None:
        match ticket:
            case OpenTicket():
                decode.open(ticket)
            case BlockTicket():
                if latents_FCYX is not None and ticket.video not in self._dropped:
                    if self._runner is not None:
                        self._send(self._beat())  # here: the block's last step is told of before the block
                    self._send(WorkBegins(videos=(ticket.video,)))
                    decode.finish_block(ticket, latents_FCYX)
            case RestoreTicket():
                decode.restore(ticket, self._known(ticket) if latents_FCYX is None else latents_FCYX, self._device)
            case CloseTicket():
                decode.close(ticket.video, lambda: self._closed(ticket.video))
            case PromptTicket() | ContextTicket():
                pass  # a decoder reads no prompt, and has shown the block

    def _closed(self, video: str) -> None:
        self._send(VideoClosed(video=video, pages_used=self._pool.num_used))

    def _void(self, shape: Shape) -> Tensor:
        """What nobody computed. The next worker may not know yet that the video is gone; NaN ends it typed there, where
        zeros would be shown."""
        return torch.full(shape, torch.nan, dtype=build.dtype_on(self._config, self._device), device=self._device)

    def _make_runner(self, model: Network, rig: Rig) -> Runner:
        return Runner(
            model=model,
            rollout=self._config.manifest.rollout,
            stages=self._placement.stages,
            pool=self._pool,
            noise=rig.noise(self._device),
            deliver=self._deliver,
            tell=self._send,
            timer=self._timer,
            max_segments=self._config.segments_limit,
            faults=Faults(rig.faults),
        )
