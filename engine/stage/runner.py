"""One worker's denoise stages, run tick by tick: receive, pack, forward, step, hand over.

The mechanism; which segments a tick runs is the policy of ``engine.stage.choose``. Tickets pass every stage in the
order in which they were submitted. Knows nothing of processes or pictures.

A video that nobody waits for, or that broke, keeps its place: its tickets pass uncomputed, without latents. One that
the device has no memory for, or whose work fails in any other way, breaks, typed; the others do not notice.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from engine.config import PromptEffect, RolloutConfig
from engine.errors import EngineOutOfMemory, VideoFailed
from engine.law.schedule import clean_level, context_level, first_stage, levels_of
from engine.law.step import step
from engine.law.window import context_stage, writes_pages
from engine.messages import (
    BlockTicket,
    CloseTicket,
    ContextTicket,
    LatentsSaved,
    OpenTicket,
    PromptTicket,
    RestoreTicket,
    Ticket,
    VideoBroken,
    WorkBegins,
)
from engine.model.confined import confined, log_end
from engine.model.segments import TextContext
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.request import TensorBytes
from engine.stage.choose import needs_forward, next_forward
from engine.stage.denoise import Arrival, DenoiseStage, StageVideo
from engine.stage.network import Network
from engine.stage.noise import Noise
from engine.stage.pages import PagePool, VideoPages
from engine.stage.passes import cache_pass, joint_passes, latents_of, pack
from engine.stage.rehearsal import Faults
from engine.stage.segment import Segment, names_in, record
from engine.trace import Timer

logger = logging.getLogger(__name__)

Deliver = Callable[[Ticket, Tensor | None], None]
"""What the last local stage calls with each ticket, and with the latents of each block it computed."""
Tell = Callable[[WorkBegins | LatentsSaved | VideoBroken], None]

NO_TEXT = TextContext(*(torch.empty(0) for _ in range(3)))
"""Of a video whose prompt failed; it is broken then, and no pass reads this."""


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
        re_encodes = rollout.prompt_change != PromptEffect.KEEP
        self._stages = [DenoiseStage(index, re_encodes) for index in stages]
        self._dropped: set[str] = set()
        self._opened: list[str] = []

    def submit(self, ticket: Ticket, latents_FCYX: Tensor | None = None) -> None:
        """Put a ticket in front of the first local stage; a block comes with latents unless that is stage 0.

        Prompts are embedded here, once for all local stages.
        """
        context = self._read_prompt(ticket) if isinstance(ticket, OpenTicket | PromptTicket) else None
        if latents_FCYX is None and isinstance(ticket, BlockTicket) and ticket.given is not None:
            latents_FCYX = self._read_latents(ticket.video, ticket.given)
        self._stages[0].arrivals.append(Arrival(ticket, latents_FCYX, context))

    def _read_prompt(self, ticket: OpenTicket | PromptTicket) -> TextContext:
        try:
            with confined("a prompt", self._model.device):
                return self._model.encode_context(to_tensor(ticket.embedding))
        except VideoFailed as failure:
            self._break(ticket.video, failure)
            return NO_TEXT

    def _read_latents(self, video: str, latents: TensorBytes) -> Tensor | None:
        """None for a video that breaks over it."""
        try:
            with confined("a known block", self._model.device):
                return to_tensor(latents).to(self._model.device, self._model.dtype)
        except VideoFailed as failure:
            self._break(video, failure)
            return None

    def cancel(self, video: str) -> None:
        """Let the video's tickets pass without being computed, until its close ticket, which is still to come."""
        self._dropped.add(video)
        for stage in self._stages:
            if video in stage.videos:
                stage.videos[video].due = None

    def tick(self) -> bool:
        """Run one forward. Returns False when nothing is left to do; control tickets have passed either way."""
        self._advance_control_tickets()
        chosen = self._with_noise(next_forward(self._stages, self._rollout, self._max_segments))
        if not chosen:
            return self._advance_control_tickets()  # tickets of a video that just broke
        self._run(chosen)
        self._advance_control_tickets()
        return True

    # --- control tickets ---

    def _advance_control_tickets(self) -> bool:
        """Let tickets that need no forward through every stage; returns whether there was any."""
        found = False
        for stage in self._stages:
            while stage.arrivals and not needs_forward(stage, self._rollout, self._dropped):
                arrival, found = stage.arrivals.popleft(), True
                self._apply(stage, arrival)
                self._hand_over(stage, arrival)
        return found

    def _apply(self, stage: DenoiseStage, arrival: Arrival) -> None:
        ticket = arrival.ticket
        match ticket:
            case OpenTicket():
                assert arrival.context is not None
                stage.videos[ticket.video] = self._new_video(ticket, arrival.context)
                if stage is self._stages[0]:
                    self._opened.append(ticket.video)
            case PromptTicket():
                assert arrival.context is not None
                self._follow(stage, stage.videos[ticket.video], arrival.context)
            case RestoreTicket():
                saved = dict(ticket.latents).get(stage.index)
                self._make_context(stage, ticket.video, ticket.block, saved, is_clean=ticket.clean)
            case ContextTicket():
                self._make_context(stage, ticket.video, ticket.block, ticket.latents, is_clean=True)
            case CloseTicket():
                stage.videos.pop(ticket.video).close()
                if stage is self._stages[-1]:
                    self._dropped.discard(ticket.video)
                    self._opened.remove(ticket.video)
            case BlockTicket():
                self._let_through(stage, ticket, arrival.latents_FCYX)

    def _new_video(self, ticket: OpenTicket, context: TextContext) -> StageVideo:
        size = (self._model.config.in_dim, ticket.latent_height, ticket.latent_width)
        return StageVideo(ticket.video, ticket.seed, size, context, VideoPages(self._pool, self._rollout))

    def _let_through(self, stage: DenoiseStage, ticket: BlockTicket, latents_FCYX: Tensor | None) -> None:
        """A block passes that this stage does not denoise: its video is dropped, it is given, or it begins later on."""
        video = stage.videos[ticket.video]
        if ticket.video in self._dropped:
            video.due = None
        elif ticket.given is not None:
            assert latents_FCYX is not None, "a given block comes with its latents"
            self._remember(stage, video, ticket, latents_FCYX)

    def _make_context(
        self, stage: DenoiseStage, name: str, block: int, latents: TensorBytes | None, *, is_clean: bool
    ) -> None:
        """Make the cache pass of a known block due, as if its denoise pass had just run."""
        if latents is None or name in self._dropped or not writes_pages(self._rollout, stage.index):
            return
        latents_FCYX = self._read_latents(name, latents)
        if latents_FCYX is not None:
            self._make_due(stage, stage.videos[name], block, latents_FCYX, is_clean=is_clean)

    def _make_due(
        self, stage: DenoiseStage, video: StageVideo, block: int, latents_FCYX: Tensor, *, is_clean: bool
    ) -> None:
        level = clean_level(self._rollout) if is_clean else context_level(self._rollout, stage.index)
        video.due = cache_pass(self._rollout, stage, video, block, latents_FCYX, level)

    def _follow(self, stage: DenoiseStage, video: StageVideo, context: TextContext) -> None:
        """Blocks from here on follow another prompt; what they see is encoded again where that is due."""
        video.context, video.num_prompts = context, video.num_prompts + 1
        if not stage.re_encodes or video.name in self._dropped or not writes_pages(self._rollout, stage.index):
            return
        segments = joint_passes(self._rollout, stage, video)
        if not segments:
            return
        self._tell(WorkBegins(videos=(video.name,)))
        began_s = time.monotonic()
        try:
            with confined("encoding again", self._model.device):
                self._forward(segments)
        except VideoFailed as failure:
            self._break(video.name, failure)
        else:
            record(segments, self._timer, began_s)
            video.pages.evict_after(video.num_cached - 1)

    def _hand_over(self, stage: DenoiseStage, arrival: Arrival) -> None:
        if stage is not self._stages[-1]:
            self._local(stage.index + 1).arrivals.append(arrival)
        else:
            computed = isinstance(arrival.ticket, BlockTicket) and arrival.ticket.video not in self._dropped
            self._deliver(arrival.ticket, arrival.latents_FCYX if computed else None)

    def _local(self, index: int) -> DenoiseStage:
        return self._stages[index - self._stages[0].index]

    # --- segments ---

    def _with_noise(self, chosen: list[Segment]) -> list[Segment]:
        """Draw the initial noise of blocks that start; a video whose noise fails breaks and is left out."""
        for segment in [segment for segment in chosen if segment.latents_FCYX is None]:
            video = segment.video
            try:
                with confined("noise", self._model.device):
                    noise = self._noise(video.seed, segment.block, 0, segment.latent_shape)
            except VideoFailed as failure:
                self._break(video.name, failure)
                chosen = [other for other in chosen if other.video is not video]
            else:
                chosen = [replace(other, latents_FCYX=noise) if other is segment else other for other in chosen]
        return chosen

    def _run(self, chosen: list[Segment]) -> None:
        """Run one forward and what follows from it. One that fails ends its video, or is run again video by video."""
        segments = [segment.placed() for segment in chosen]
        self._tell(WorkBegins(videos=tuple(sorted(names_in(segments)))))
        began_s = time.monotonic()
        try:
            with confined("a pass", self._model.device):
                flow_GFCYX = self._forward(segments)
        except VideoFailed as failure:
            suspects = self._blame(segments, failure)
        else:
            suspects = []
            record(segments, self._timer, began_s)
            for segment in segments:
                segment.settle()
            for segment, flow_FCYX in zip(_denoise_passes(segments), flow_GFCYX, strict=True):
                self._step(segment, flow_FCYX)
        for name in suspects:  # here: what the failed forward had allocated is free by now
            self._run([segment for segment in chosen if segment.video.name == name])

    def _forward(self, segments: list[Segment]) -> Tensor:
        """Run one forward and wait for it: timers and neighbours need to know when it is over."""
        batch = pack(self._rollout, self._model, segments)
        for segment in _denoise_passes(segments):
            self._faults.before_pass(segment.stage.index, segment.block, segment.video.seed)
        flow_GFCYX = self._model(batch, self._pool.cache)
        if flow_GFCYX.is_cuda:
            torch.cuda.current_stream().synchronize()
        return flow_GFCYX

    def _step(self, segment: Segment, flow_FCYX: Tensor) -> None:
        """From flow to the clean block, to the next level, and on to the next stage; remember the cache pass."""
        ticket, latents = segment.ticket, None
        assert ticket is not None, "a cache pass predicts no flow"
        try:
            with confined("a step", self._model.device):
                x0, latents = self._next_level(segment, ticket, flow_FCYX)
                context = x0 if self._rollout.clean_context else latents
                self._remember(segment.stage, segment.video, ticket, context)
        except VideoFailed as failure:
            self._break(ticket.video, failure)
        self._hand_over(segment.stage, Arrival(ticket, latents))

    def _next_level(self, segment: Segment, ticket: BlockTicket, flow_FCYX: Tensor) -> tuple[Tensor, Tensor]:
        """The clean prediction, and the block at the level that follows."""
        stage, video, block = segment.stage.index, segment.video, segment.block
        following = stage + 1 - first_stage(self._rollout, opening=ticket.opening)
        level = levels_of(self._rollout, opening=ticket.opening)[following]
        noise = partial(self._noise, video.seed, block, following, segment.latent_shape)
        x0, latents = step(self._rollout, latents_of(segment), flow_FCYX, segment.level, level, noise)
        if self._faults.spoils(stage, block, video.seed):
            latents = torch.full_like(latents, torch.nan)
        return x0, latents

    def _remember(self, stage: DenoiseStage, video: StageVideo, ticket: BlockTicket, latents_FCYX: Tensor) -> None:
        """Make the block's cache pass due, and tell what it reads if that is asked for."""
        if ticket.last or ticket.video in self._dropped or not writes_pages(self._rollout, stage.index):
            return
        if ticket.alone and stage.index < self._rollout.num_stages - 1:
            return
        if not ticket.alone:
            self._make_due(stage, video, ticket.block, latents_FCYX, is_clean=ticket.given is not None)
        if ticket.save or ticket.alone:
            saved = to_bytes(latents_FCYX)
            self._tell(LatentsSaved(video=ticket.video, block=ticket.block, stage=stage.index, latents=saved))

    def _blame(self, segments: list[Segment], failure: VideoFailed) -> list[str]:
        """Undo a forward that failed and break the video at fault; returns those to try apart if that is not known.

        Where memory ran out it is the video that came last, and the others have room in the next forward: a device's
        allocator looks through all that it keeps before it raises. Emptying it here would stop the device, and wait for
        receives that are posted ahead.
        """
        for segment in segments:
            segment.undo()
        names = names_in(segments)
        if isinstance(failure, EngineOutOfMemory):
            if not names & self._dropped:  # one that broke since it was chosen is gone the next time
                self._break(max(names, key=self._opened.index), failure)
            return []
        if len(names) == 1:
            self._break(names.pop(), failure)
            return []
        suspects = sorted(names - self._dropped, key=self._opened.index)
        logger.warning("videos %s are tried apart: %s: %s", ", ".join(suspects), failure.message, failure.__cause__)
        return suspects

    def _break(self, video: str, failure: VideoFailed) -> None:
        """End a video. Its tickets pass uncomputed from here on."""
        if video in self._dropped:
            return
        self.cancel(video)
        log_end(video, failure)
        self._tell(VideoBroken(video=video, code=failure.code, message=failure.message))


def _denoise_passes(segments: list[Segment]) -> list[Segment]:
    return [segment for segment in segments if segment.ticket is not None]
