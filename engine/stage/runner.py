"""One worker's denoise stages, run tick by tick: receive, pack, forward, step, hand over.

Tickets pass every stage in the order in which they were submitted. A tick takes the passes that are ready, the most
downstream first, because they are closest to a viewer; a due cache pass joins the forward of the denoise pass that
needs it, or runs alone when nothing else is ready (design, law 4). Knows nothing of processes or pictures.

A session that nobody waits for, or that broke, keeps its place: its tickets pass uncomputed, without latents. One that
the device has no memory for breaks, typed, wherever that shows; the others do not notice.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.errors import EngineOutOfMemory
from engine.law.schedule import Level, attended_blocks, context_stage, noise_levels, writes_pages
from engine.law.step import predict_x0, re_noise
from engine.messages import (
    BlockTicket,
    CloseTicket,
    LatentsSaved,
    OpenTicket,
    PromptTicket,
    RestoreTicket,
    SessionBroken,
    Ticket,
    WorkBegins,
)
from engine.model.segments import SegmentBatch, TextContext
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.stage.denoise import Arrival, CachePass, DenoiseStage, StageSession
from engine.stage.noise import Noise
from engine.stage.outcome import record, settle, undo
from engine.stage.pages import PagePool, SessionPages
from engine.stage.passes import DenoisePass, Network, Passes
from engine.stage.rehearsal import Faults
from engine.trace import Timer

logger = logging.getLogger(__name__)

Deliver = Callable[[Ticket, Tensor | None], None]
"""What the last local stage calls with each ticket, and with the latents of each block it computed."""
Tell = Callable[[WorkBegins | LatentsSaved | SessionBroken], None]

NO_TEXT = TextContext(*(torch.empty(0) for _ in range(3)))
"""Of a session that had no memory for its prompt; it is broken then, and no pass reads this."""


class Runner:
    """The denoise stages of one worker: an adjacent part of the chain."""

    def __init__(
        self,
        *,
        model: Network,
        rollout: RolloutConfig,
        stages: tuple[int, ...],
        pool: PagePool,
        noise: Noise,
        deliver: Deliver,
        tell: Tell,
        timer: Timer,
        max_segments: int,
        faults: Faults,
    ) -> None:
        """``max_segments`` bounds a forward: 1 never fuses, 2 is one fused step, 2S runs all stages at once."""
        assert max_segments >= 1, "a forward needs room for a segment"
        assert stages == tuple(range(stages[0], stages[-1] + 1)), f"stages {stages} are not adjacent"
        assert {context_stage(rollout, stage) for stage in stages} <= set(stages), "pages of another worker"
        self._model, self._rollout, self._pool, self._noise = model, rollout, pool, noise
        self._deliver, self._tell, self._timer, self._max_segments = deliver, tell, timer, max_segments
        self._faults = faults
        self._levels = noise_levels(rollout)
        self._stages = [DenoiseStage(index) for index in stages]
        self._dropped: set[str] = set()
        self._opened: list[str] = []

    def submit(self, ticket: Ticket, latents_FCYX: Tensor | None = None) -> None:
        """Put a ticket in front of the first local stage; a block comes with latents unless that is stage 0.

        Prompts are embedded here, once for all local stages.
        """
        context = self._read_prompt(ticket) if isinstance(ticket, OpenTicket | PromptTicket) else None
        self._stages[0].arrivals.append(Arrival(ticket, latents_FCYX, context))

    def _read_prompt(self, ticket: OpenTicket | PromptTicket) -> TextContext:
        try:
            return self._model.encode_context(to_tensor(ticket.embedding))
        except torch.OutOfMemoryError as error:
            self._break(ticket.session, "a prompt", error)
            return NO_TEXT

    def cancel(self, session: str) -> None:
        """Let the session's tickets pass without being computed, until its close ticket, which is still to come."""
        self._dropped.add(session)
        for stage in self._stages:
            if session in stage.sessions:
                stage.sessions[session].due = None

    def tick(self) -> bool:
        """Run one forward. Returns False when nothing is left to do; control tickets have passed either way."""
        self._pass_what_needs_no_forward()
        passes = self._choose()
        if not len(passes):
            return self._pass_what_needs_no_forward()  # tickets of a session that just broke
        began_s = time.monotonic()
        try:
            flow_GFCYX = self._forward(passes)
        except torch.OutOfMemoryError as error:
            self._give_up_one(passes, error)
            return True
        record(passes, self._timer, began_s)
        settle(passes)
        for denoise, flow_FCYX in zip(passes.denoise, flow_GFCYX, strict=True):
            self._step(denoise, flow_FCYX)
        self._pass_what_needs_no_forward()
        return True

    # --- control tickets ---

    def _pass_what_needs_no_forward(self) -> bool:
        """Returns whether there was anything."""
        passed = False
        for stage in self._stages:
            while stage.arrivals and not self._needs_forward(stage, stage.arrivals[0]):
                arrival, passed = stage.arrivals.popleft(), True
                self._apply(stage, arrival)
                self._hand_over(stage, arrival)
        return passed

    def _needs_forward(self, stage: DenoiseStage, arrival: Arrival) -> bool:
        match arrival.ticket:
            case BlockTicket(session=session):
                return session not in self._dropped
            case RestoreTicket():
                return stage.awaited_pass() is not None
            case _:
                return False

    def _apply(self, stage: DenoiseStage, arrival: Arrival) -> None:
        ticket = arrival.ticket
        match ticket:
            case OpenTicket():
                assert arrival.context is not None
                stage.sessions[ticket.session] = self._new_session(ticket, arrival.context)
                if stage is self._stages[0]:
                    self._opened.append(ticket.session)
            case PromptTicket():
                assert arrival.context is not None
                stage.sessions[ticket.session].context = arrival.context
            case RestoreTicket():
                self._restore(stage, ticket)
            case CloseTicket():
                stage.sessions.pop(ticket.session).pages.release()
                if stage is self._stages[-1]:
                    self._dropped.discard(ticket.session)
                    self._opened.remove(ticket.session)
            case BlockTicket():
                stage.sessions[ticket.session].due = None

    def _new_session(self, ticket: OpenTicket, context: TextContext) -> StageSession:
        num_frames, num_channels = self._rollout.latent_frames_per_block, self._model.config.in_dim
        shape = (num_frames, num_channels, ticket.latent_height, ticket.latent_width)
        return StageSession(ticket.seed, shape, context, SessionPages(self._pool, self._rollout))

    def _restore(self, stage: DenoiseStage, ticket: RestoreTicket) -> None:
        """Make the cache pass of a known block due, as if its denoise pass had just run."""
        saved = dict(ticket.latents).get(stage.index)
        session = stage.sessions[ticket.session]
        if saved is None or ticket.session in self._dropped:
            return
        try:
            latents = to_tensor(saved).to(self._model.device, self._model.dtype)
        except torch.OutOfMemoryError as error:
            self._break(ticket.session, "a saved block", error)
        else:
            session.due = CachePass(ticket.session, ticket.block, latents, session.context)

    def _hand_over(self, stage: DenoiseStage, arrival: Arrival) -> None:
        if stage is not self._stages[-1]:
            self._local(stage.index + 1).arrivals.append(arrival)
        else:
            computed = isinstance(arrival.ticket, BlockTicket) and arrival.ticket.session not in self._dropped
            self._deliver(arrival.ticket, arrival.latents_FCYX if computed else None)

    def _local(self, index: int) -> DenoiseStage:
        return self._stages[index - self._stages[0].index]

    def _writer(self, stage: DenoiseStage) -> DenoiseStage:
        """The stage whose pages ``stage`` attends to."""
        return self._local(context_stage(self._rollout, stage.index))

    # --- passes ---

    def _choose(self) -> Passes:
        passes = Passes([], [])
        for stage in reversed(self._stages):
            awaited = stage.awaited_pass()
            if awaited is not None and len(passes) < self._max_segments and passes.fits(awaited.latents_FCYX):
                passes.cache.append((stage, awaited))
            self._add_denoise_pass(passes, stage)
        if not passes.denoise:
            self._add_due_cache_passes(passes)
        return passes

    def _add_denoise_pass(self, passes: Passes, stage: DenoiseStage) -> None:
        """Add the stage's next denoise pass and the cache pass it needs, if both are ready and there is room."""
        waiting = stage.waiting_block()
        if waiting is None:
            return
        ticket, arrival = waiting
        writer = self._writer(stage)
        if not writer.context_is_within_reach(ticket.session, attended_blocks(self._rollout, ticket.block)):
            return
        due = writer.sessions[ticket.session].due
        if len(passes) + (2 if due else 1) > self._max_segments:
            return
        latents = self._input_of(stage, ticket, arrival)
        if latents is None or not passes.fits(latents):
            return
        if due:
            passes.cache.append((writer, due))
        passes.denoise.append(DenoisePass(stage, ticket, arrival, latents))
        stage.arrivals.popleft()

    def _add_due_cache_passes(self, passes: Passes) -> None:
        chosen = {(id(stage), due.session) for stage, due in passes.cache}
        for stage in reversed(self._stages):
            for due in stage.due_passes():
                is_new = (id(stage), due.session) not in chosen
                if is_new and len(passes) < self._max_segments and passes.fits(due.latents_FCYX):
                    passes.cache.append((stage, due))

    def _input_of(self, stage: DenoiseStage, ticket: BlockTicket, arrival: Arrival) -> Tensor | None:
        """What the block comes as; None if the session breaks for want of memory."""
        if arrival.latents_FCYX is not None:
            return arrival.latents_FCYX
        session = stage.sessions[ticket.session]
        try:
            return self._noise(session.seed, ticket.block, 0, session.latent_shape)
        except torch.OutOfMemoryError as error:
            self._break(ticket.session, "noise", error)
            return None

    def _forward(self, passes: Passes) -> Tensor:
        """Run one forward and wait for it: timers and neighbours need to know when it is over."""
        batch = self._pack(passes)
        self._tell(WorkBegins(sessions=tuple(sorted(passes.sessions))))
        for denoise in passes.denoise:
            seed = denoise.stage.sessions[denoise.ticket.session].seed
            self._faults.before_pass(denoise.stage.index, denoise.ticket.block, seed)
        flow_GFCYX = self._model(batch, self._pool.cache)
        if flow_GFCYX.is_cuda:
            torch.cuda.current_stream().synchronize()
        return flow_GFCYX

    def _pack(self, passes: Passes) -> SegmentBatch:
        """Lay out the forward: cache passes first, each writing a page claimed here."""
        latents, levels, blocks, contexts, lists, writes = [], [], [], [], [], []
        for stage, due in passes.cache:
            pages = stage.sessions[due.session].pages
            latents.append(due.latents_FCYX)
            levels.append(self._output_level(stage))
            blocks.append(due.block)
            contexts.append(due.context)
            writes.append(pages.claim(due.block))  # first: it tells a restored session which blocks it skipped
            lists.append(pages.attended(due.block))
        for denoise in passes.denoise:
            session, block = denoise.ticket.session, denoise.ticket.block
            writer = self._writer(denoise.stage)
            latents.append(denoise.latents_FCYX)
            levels.append(self._levels[denoise.stage.index])
            blocks.append(block)
            contexts.append(denoise.stage.sessions[session].context)
            lists.append(writer.sessions[session].pages.attended(block))
        device = self._model.device
        return SegmentBatch(
            latents_GFCYX=torch.stack(latents),
            timesteps_G=torch.tensor([level.timestep for level in levels], dtype=torch.float32, device=device),
            blocks_G=torch.tensor(blocks, dtype=torch.int64, device=device),
            contexts=tuple(contexts),
            page_lists=tuple(lists),
            write_pages=tuple(writes),
        )

    def _output_level(self, stage: DenoiseStage) -> Level:
        return self._levels[stage.index + 1]

    def _step(self, denoise: DenoisePass, flow_FCYX: Tensor) -> None:
        """From flow to the clean block, to the next level, and on to the next stage; remember the cache pass."""
        ticket, latents = denoise.ticket, None
        try:
            latents = self._next_level(denoise, flow_FCYX)
            self._remember(denoise, latents)
        except torch.OutOfMemoryError as error:
            self._break(ticket.session, "a step", error)
        self._hand_over(denoise.stage, Arrival(ticket, latents))

    def _next_level(self, denoise: DenoisePass, flow_FCYX: Tensor) -> Tensor:
        stage, ticket = denoise.stage, denoise.ticket
        session = stage.sessions[ticket.session]
        latents = predict_x0(denoise.latents_FCYX, flow_FCYX, self._levels[stage.index])
        following = stage.index + 1
        if following < self._rollout.num_stages:
            noise = self._noise(session.seed, ticket.block, following, session.latent_shape)
            latents = re_noise(latents, noise, self._output_level(stage))
        if self._faults.spoils(stage.index, ticket.block, session.seed):
            latents = torch.full_like(latents, torch.nan)
        return latents

    def _remember(self, denoise: DenoisePass, latents_FCYX: Tensor) -> None:
        """Make the block's cache pass due, and tell what it reads if that is asked for."""
        stage, ticket = denoise.stage, denoise.ticket
        if ticket.last or ticket.session in self._dropped or not writes_pages(self._rollout, stage.index):
            return
        session = stage.sessions[ticket.session]
        session.due = CachePass(ticket.session, ticket.block, latents_FCYX, session.context)
        if ticket.save:
            saved = to_bytes(latents_FCYX)
            self._tell(LatentsSaved(session=ticket.session, block=ticket.block, stage=stage.index, latents=saved))

    def _give_up_one(self, passes: Passes, error: torch.OutOfMemoryError) -> None:
        """Undo a forward that had no memory and break the session that came last; the others try again.

        What it held is free for them: a device's allocator looks through all that it keeps before it raises. Emptying
        it here would stop the device, and wait for receives that are posted ahead.
        """
        undo(passes)
        if not passes.sessions & self._dropped:  # one that broke since it was chosen is gone the next time
            self._break(max(passes.sessions, key=self._opened.index), "a pass", error)

    def _break(self, session: str, purpose: str, error: torch.OutOfMemoryError) -> None:
        """End a session that the device has no memory for. Its tickets pass uncomputed from here on."""
        if session in self._dropped:
            return
        self.cancel(session)
        reason = str(error).partition("\n")[0]
        logger.error("session %s ends: %s", session, reason)
        message = f"{self._model.device} had no memory left for {purpose} ({reason})"
        self._tell(SessionBroken(session=session, code=EngineOutOfMemory.code, message=message))
