"""One worker's denoise stages, run tick by tick: receive, pack, forward, step, hand over.

Tickets pass every stage in the order in which they were submitted. A tick takes the passes that are ready, the most
downstream first, because they are closest to a viewer; a due cache pass joins the forward of the denoise pass that
needs it, or runs alone when nothing else is ready (design, law 4). Knows nothing of processes or pictures.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.messages import BlockTicket, CloseTicket, OpenTicket, PromptTicket, Ticket
from engine.model.dit import CausalWan
from engine.model.segments import SegmentBatch, TextContext
from engine.model.tensor_bytes import to_tensor
from engine.schedule import Level, context_stage, noise_levels, writes_pages
from engine.stage.denoise import Arrival, CachePass, DenoiseStage, StageSession
from engine.stage.noise import Noise
from engine.stage.pages import PagePool, SessionPages

Deliver = Callable[[Ticket, Tensor | None], None]
"""What the last stage calls with each ticket, and with the finished latents of each block it computed."""


@dataclass(frozen=True)
class DenoisePass:
    """A denoise pass chosen for this tick."""

    stage: DenoiseStage
    ticket: BlockTicket
    latents_FCYX: Tensor


@dataclass
class Passes:
    """What one forward will run."""

    cache: list[tuple[DenoiseStage, CachePass]]
    denoise: list[DenoisePass]

    def __len__(self) -> int:
        return len(self.cache) + len(self.denoise)

    def fits(self, latents_FCYX: Tensor) -> bool:
        """Whether a block of this size may join: all segments of a forward have one size."""
        chosen = [due.latents_FCYX for _, due in self.cache] + [d.latents_FCYX for d in self.denoise]
        return not chosen or chosen[0].shape == latents_FCYX.shape


class Runner:
    """All denoise stages on one device."""

    def __init__(
        self,
        *,
        model: CausalWan,
        rollout: RolloutConfig,
        pool: PagePool,
        noise: Noise,
        deliver: Deliver,
        max_segments: int,
    ) -> None:
        """``max_segments`` bounds a forward: 1 never fuses, 2 is one fused step, 2S runs all stages at once."""
        assert max_segments >= 1, "a forward needs room for a segment"
        self._model, self._rollout, self._pool, self._noise = model, rollout, pool, noise
        self._deliver, self._max_segments = deliver, max_segments
        self._levels = noise_levels(rollout)
        self._stages = [DenoiseStage(index) for index in range(rollout.num_stages)]
        self._cancelled: set[str] = set()

    @property
    def pages_used(self) -> int:
        """Pages that sessions hold."""
        return self._pool.num_used

    def submit(self, ticket: Ticket) -> None:
        """Put a ticket in front of the first stage. Prompts are embedded here, once for all stages."""
        context = None
        if isinstance(ticket, OpenTicket | PromptTicket):
            context = self._model.encode_context(to_tensor(ticket.embedding))
        self._stages[0].arrivals.append(Arrival(ticket, context=context))

    def cancel(self, session: str) -> None:
        """Let the session's tickets pass without being computed, until its close ticket."""
        self._cancelled.add(session)

    def is_cancelled(self, session: str) -> bool:
        """Whether nobody waits for the session any more."""
        return session in self._cancelled

    def tick(self) -> bool:
        """Run one forward. Returns False when no pass was ready; control tickets have passed either way."""
        self._pass_what_needs_no_forward()
        passes = self._choose()
        if not len(passes):
            return False
        flow_GFCYX = self._model(self._pack(passes), self._pool.cache)
        self._settle_cache_passes(passes.cache)
        for denoise, flow_FCYX in zip(passes.denoise, flow_GFCYX, strict=True):
            self._step(denoise, flow_FCYX)
        self._pass_what_needs_no_forward()
        return True

    # --- control tickets ---

    def _pass_what_needs_no_forward(self) -> None:
        for stage in self._stages:
            while stage.arrivals and not self._needs_forward(stage.arrivals[0]):
                arrival = stage.arrivals.popleft()
                self._apply(stage, arrival)
                self._hand_over(stage, arrival)

    def _needs_forward(self, arrival: Arrival) -> bool:
        return isinstance(arrival.ticket, BlockTicket) and arrival.ticket.session not in self._cancelled

    def _apply(self, stage: DenoiseStage, arrival: Arrival) -> None:
        ticket = arrival.ticket
        match ticket:
            case OpenTicket():
                assert arrival.context is not None
                stage.sessions[ticket.session] = self._new_session(ticket, arrival.context)
            case PromptTicket():
                assert arrival.context is not None
                stage.sessions[ticket.session].context = arrival.context
            case CloseTicket():
                stage.sessions.pop(ticket.session).pages.release()
                if stage.index + 1 == len(self._stages):
                    self._cancelled.discard(ticket.session)
            case BlockTicket():
                stage.sessions[ticket.session].due = None

    def _new_session(self, ticket: OpenTicket, context: TextContext) -> StageSession:
        shape = (
            self._rollout.latent_frames_per_block,
            self._model.config.in_dim,
            ticket.latent_height,
            ticket.latent_width,
        )
        return StageSession(ticket.seed, shape, context, SessionPages(self._pool, self._rollout))

    def _hand_over(self, stage: DenoiseStage, arrival: Arrival) -> None:
        following = stage.index + 1
        if following < len(self._stages):
            self._stages[following].arrivals.append(arrival)
        else:
            self._deliver(arrival.ticket, arrival.latents_FCYX)

    # --- passes ---

    def _choose(self) -> Passes:
        passes = Passes([], [])
        for stage in reversed(self._stages):
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
        writer = self._stages[context_stage(self._rollout, stage.index)]
        if not writer.context_is_within_reach(ticket.session, ticket.block):
            return
        due = writer.sessions[ticket.session].due
        if len(passes) + (2 if due else 1) > self._max_segments:
            return
        latents = self._input_of(stage, ticket, arrival)
        if not passes.fits(latents):
            return
        if due:
            passes.cache.append((writer, due))
        passes.denoise.append(DenoisePass(stage, ticket, latents))
        stage.arrivals.popleft()

    def _add_due_cache_passes(self, passes: Passes) -> None:
        for stage in reversed(self._stages):
            for due in stage.due_passes():
                if len(passes) < self._max_segments and passes.fits(due.latents_FCYX):
                    passes.cache.append((stage, due))

    def _input_of(self, stage: DenoiseStage, ticket: BlockTicket, arrival: Arrival) -> Tensor:
        if arrival.latents_FCYX is not None:
            return arrival.latents_FCYX
        session = stage.sessions[ticket.session]
        return self._noise(session.seed, ticket.block, 0, session.latent_shape)

    def _pack(self, passes: Passes) -> SegmentBatch:
        """Lay out the forward: cache passes first, each writing a page claimed here."""
        latents, levels, blocks, contexts, lists, writes = [], [], [], [], [], []
        for stage, due in passes.cache:
            pages = stage.sessions[due.session].pages
            latents.append(due.latents_FCYX)
            levels.append(self._output_level(stage))
            blocks.append(due.block)
            contexts.append(due.context)
            lists.append(pages.attended(due.block))
            writes.append(pages.claim(due.block))
        for denoise in passes.denoise:
            session, block = denoise.ticket.session, denoise.ticket.block
            writer = self._stages[context_stage(self._rollout, denoise.stage.index)]
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

    def _settle_cache_passes(self, cache: list[tuple[DenoiseStage, CachePass]]) -> None:
        for stage, due in cache:
            session = stage.sessions[due.session]
            session.pages.evict_after(due.block)
            session.num_cached, session.due = due.block + 1, None

    def _step(self, denoise: DenoisePass, flow_FCYX: Tensor) -> None:
        """From flow to the clean block, to the next level, and on to the next stage; remember the cache pass."""
        stage, ticket = denoise.stage, denoise.ticket
        session = stage.sessions[ticket.session]
        latents = predict_x0(denoise.latents_FCYX, flow_FCYX, self._levels[stage.index])
        following = stage.index + 1
        if following < len(self._stages):
            noise = self._noise(session.seed, ticket.block, following, session.latent_shape)
            latents = re_noise(latents, noise, self._output_level(stage))
        if writes_pages(self._rollout, stage.index) and not ticket.last:
            session.due = CachePass(ticket.session, ticket.block, latents, session.context)
        self._hand_over(stage, Arrival(ticket, latents))


def predict_x0(x: Tensor, flow: Tensor, level: Level) -> Tensor:
    """The clean block, ``x - sigma * flow`` in float64, in the flow's type (spec section 3.3)."""
    return (x.double() - level.sigma * flow.double()).to(flow.dtype)


def re_noise(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """The block at a level, ``(1 - sigma) * x0 + sigma * noise`` in float32, in x0's type (spec section 3.4)."""
    return torch.lerp(x0.float(), noise.float(), level.sigma).to(x0.dtype)
