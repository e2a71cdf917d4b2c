"""Which passes share the next forward: the policy of a worker's denoise stages.

The most downstream pass comes first, because it is closest to a viewer. A stage has at most one denoise pass in a
forward. A due cache pass joins the forward of the denoise pass that needs it; it runs without one only if a restore
ticket waits for it or no denoise pass is ready (design, law 4). All segments of a forward have one picture size.

Reads the stages and changes nothing; the runner computes. Imports no torch.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from engine.config import RolloutConfig
from engine.law.schedule import first_stage, latent_frames_in_block, levels_of
from engine.law.window import attended_blocks, context_stage
from engine.messages import BlockTicket
from engine.stage.denoise import DenoiseStage, StageVideo
from engine.stage.segment import Segment


def next_forward(stages: Sequence[DenoiseStage], rollout: RolloutConfig, max_segments: int) -> list[Segment]:
    """The segments to run now, cache passes first; empty when no pass is ready.

    Args:
        stages: adjacent ones, head first; those whose pages they attend to are among them. Tickets that need no
            forward have left their queues.
        rollout: what the checkpoint was trained to do.
        max_segments: the most that a forward may hold, at least 1.
    """
    chosen = _Chosen(max_segments)
    for stage in reversed(stages):
        awaited = stage.awaited_pass()
        if awaited is not None and chosen.has_room_for(awaited):
            chosen.cache.append(awaited)
        _add_denoise_pass(chosen, stage, stages, rollout)
    if not chosen.denoise:
        _add_due_cache_passes(chosen, stages)
    return [*chosen.cache, *chosen.denoise]


def needs_forward(stage: DenoiseStage, rollout: RolloutConfig, dropped: Container[str]) -> bool:
    """Whether the ticket at the head of the queue must wait for a forward; ``dropped`` videos never need one."""
    match stage.arrivals[0].ticket:
        case BlockTicket(video=video) if video in dropped:
            return False
        case BlockTicket(given=None, opening=opening):
            return stage.index >= first_stage(rollout, opening=opening)
        case _:
            return stage.awaited_pass() is not None


@dataclass
class _Chosen:
    max_segments: int
    cache: list[Segment] = field(default_factory=list)
    denoise: list[Segment] = field(default_factory=list)

    def has_room_for(self, *segments: Segment) -> bool:
        together = [*self.cache, *self.denoise, *segments]
        sizes = {segment.latent_shape for segment in together}
        return len(together) <= self.max_segments and len(sizes) == 1


def _add_denoise_pass(
    chosen: _Chosen, stage: DenoiseStage, stages: Sequence[DenoiseStage], rollout: RolloutConfig
) -> None:
    """Add the stage's next denoise pass and the cache pass it needs, if both are ready and there is room."""
    waiting = stage.waiting_block()
    if waiting is None or waiting[0].given is not None:
        return
    ticket, arrival = waiting
    writer = stages[context_stage(rollout, stage.index) - stages[0].index].videos.get(ticket.video)
    if writer is None or not _context_is_within_reach(writer, attended_blocks(rollout, ticket.block)):
        return
    video = stage.videos[ticket.video]
    if stage.re_encodes and writer.num_prompts < video.num_prompts:
        return
    denoise = Segment(
        stage=stage,
        video=video,
        block=ticket.block,
        num_latent_frames=latent_frames_in_block(rollout, ticket.block),
        latents_FCYX=arrival.latents_FCYX,
        level=levels_of(rollout, opening=ticket.opening)[stage.index - first_stage(rollout, opening=ticket.opening)],
        context=video.context,
        pages=writer.pages,
        ticket=ticket,
    )
    due = writer.due
    # It may be there already: if blocks do not attend to the one before, several of a video are under way at once.
    needed = [due] if due is not None and due not in chosen.cache else []
    if chosen.has_room_for(*needed, denoise):
        chosen.cache += needed
        chosen.denoise.append(denoise)


def _context_is_within_reach(writer: StageVideo, attended: tuple[int, ...]) -> bool:
    """Whether the pages of all these blocks are written, or due and able to join the forward that needs them."""
    newest = max(attended, default=-1)
    return writer.num_cached > newest or (writer.due is not None and writer.due.block == newest)


def _add_due_cache_passes(chosen: _Chosen, stages: Sequence[DenoiseStage]) -> None:
    for stage in reversed(stages):
        for due in stage.due_passes():
            if due not in chosen.cache and chosen.has_room_for(due):
                chosen.cache.append(due)
