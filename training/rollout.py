"""Roll-outs of a student by itself, with the engine's own segments and pages, for many samples at once.

A roll-out runs the stages up to an *exit stage* without gradients, in the order and with the context that training
asks for; ``exit_x0`` then repeats the denoise passes of the exit stage with gradients. Their inputs and the pages they
attend to are known by then and carry no history, so no gradient can reach an earlier stage or the context, and all
blocks share one forward (spec section 6.2, with the truncation that the paper intends).

Knows no loss and no text encoder.

Letters: B samples, N blocks, G segments, T text rows, F latent frames of a block, C latent channels, Y and X latent
height and width, P pages, L tokens of a block, H heads, K channels of a head, W pages a segment reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from engine.config import Order, RolloutConfig, require
from engine.law.schedule import Level, noise_levels
from engine.law.step import predict_x0, re_noise
from engine.law.window import attended_blocks
from engine.model.dit import CausalWan
from engine.model.segments import ForwardInputs, PagedCache, TextRows
from engine.stage.noise import KeyedNoise
from kernels.attention.table import PageTable, page_table
from training.forward import Mask, joined_attention

Cell = tuple[int, int]
"""A stage and a block."""

BatchNoise = Callable[[int, int], Tensor]
"""``noise(block, stage)``: the noise in the input of ``stage``, one row a sample, [B, F, C, Y, X]."""


class Context(StrEnum):
    """What the cache pass of a stage reads: the noise level of the context (spec section 7.4)."""

    NEXT = "next"
    """The block as it leaves the stage: HiAR."""
    CURRENT = "current"
    """The block as it enters the stage."""
    CLEAN = "clean"
    """The stage's prediction of the clean block, at timestep 0."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a roll-out runs. Raises ``ValueError`` on what is not defined."""

    rollout: RolloutConfig
    num_blocks: int
    exit_stage: int
    """The last stage that runs; its predictions are the result."""
    context: Context = Context.NEXT

    def __post_init__(self) -> None:
        """Check bounds, and that block-first has its one clean context."""
        require(self.num_blocks >= 1, f"{self.num_blocks=} is below 1")
        require(0 <= self.exit_stage < self.rollout.num_stages, f"there is no stage {self.exit_stage}")
        require(self.rollout.sink_latent_frames == 0, "roll-outs with sinks are not trained")
        clean = self.context == Context.CLEAN
        require(clean or self.rollout.order == Order.STEP_FIRST, "block-first has clean context only")

    def forwards(self) -> Iterator[list[Cell]]:
        """The denoise passes of each forward, in the order of forwards.

        Step-first cells on an anti-diagonal do not depend on each other, so they share a forward; block-first cells
        all wait for one another.
        """
        stages = range(self.exit_stage + 1)
        if self.rollout.order == Order.BLOCK_FIRST:
            yield from ([(stage, block)] for block in range(self.num_blocks) for stage in stages)
            return
        for diagonal in range(self.num_blocks + self.exit_stage):
            yield [(stage, diagonal - stage) for stage in stages if 0 <= diagonal - stage < self.num_blocks]

    def page_stage(self, stage: int) -> int:
        """The stage whose pages ``stage`` attends to. Block-first keeps the pages of the last stage that runs."""
        return stage if self.rollout.order == Order.STEP_FIRST else self.exit_stage


def sample_noise(noise: KeyedNoise, seeds: Sequence[int], shape: tuple[int, int, int, int]) -> BatchNoise:
    """Noise for samples that have a seed each; ``shape`` is that of a block's latents [F, C, Y, X]."""
    return lambda block, stage: torch.stack([noise(seed, block, stage, shape) for seed in seeds])


@dataclass
class SelfRollout:
    """A roll-out without gradients, and what is needed to repeat its exit stage."""

    plan: Plan
    num_samples: int
    cache: PagedCache
    num_slots: int
    """Pages of one sample and stage; a block's page is taken by the one ``num_slots`` later."""
    inputs: dict[Cell, Tensor] = field(default_factory=dict)
    """Latents of blocks that a stage is yet to denoise; in the end those of the exit stage alone."""
    x0: list[Tensor] = field(default_factory=list)
    """Predictions of the exit stage by block, each [B, F, C, Y, X]."""

    @property
    def x0_BNFCYX(self) -> Tensor:
        """The predictions of the exit stage."""
        return torch.stack(self.x0, dim=1)

    def page(self, stage: int, block: int, sample: int) -> int:
        """Where the keys and values of a block are."""
        first = 0 if self.plan.rollout.order == Order.BLOCK_FIRST else stage * self.num_slots
        return (first + block % self.num_slots) * self.num_samples + sample


@torch.no_grad()
def roll_out(
    model: CausalWan, plan: Plan, noise: BatchNoise, text: TextRows, *, keeps_pages: bool = True
) -> SelfRollout:
    """Run the stages up to the exit stage.

    Args:
        model: the student.
        plan: order, context, length and exit stage.
        noise: of all samples.
        text: rows of each sample.
        keeps_pages: keep the exit stage's pages of all blocks, for ``exit_x0``; else only those within the window,
            which makes long videos cheap.
    """
    run = _begin(model, plan, noise, keeps_pages)
    levels = noise_levels(plan.rollout)
    due: list[tuple[Cell, Tensor, Level]] = []
    for cells in plan.forwards():
        passes = [*due, *((cell, run.inputs[cell], levels[cell[0]]) for cell in cells)]
        flows = _forward(model, run, passes, len(due), text).chunk(len(cells))
        due = []
        for cell, flow in zip(cells, flows, strict=True):
            due += _settle(run, cell, flow, noise, levels)
    return run


def exit_x0(model: CausalWan, run: SelfRollout, text: TextRows) -> Tensor:
    """The exit stage's predictions once more, with gradients, in one forward. Returns [B, N, F, C, Y, X].

    Gradients reach the weights through these passes and through ``text``, and nothing else.
    """
    plan, level = run.plan, noise_levels(run.plan.rollout)[run.plan.exit_stage]
    cells = [(plan.exit_stage, block) for block in range(plan.num_blocks)]
    flow = _forward(model, run, [(cell, run.inputs[cell], level) for cell in cells], 0, text)
    x0 = [predict_x0(run.inputs[cell], part, level) for cell, part in zip(cells, flow.chunk(len(cells)), strict=True)]
    return torch.stack(x0, dim=1)


def _begin(model: CausalWan, plan: Plan, noise: BatchNoise, keeps_pages: bool) -> SelfRollout:
    """Draw the initial noise and make room for pages."""
    inputs = {(0, block): noise(block, 0) for block in range(plan.num_blocks)}
    num_samples, num_frames, _, height, width = inputs[0, 0].shape
    config, window = model.config, plan.rollout.window_blocks
    num_slots = plan.num_blocks if keeps_pages else min(plan.num_blocks, window)
    stages = 1 if plan.rollout.order == Order.BLOCK_FIRST else plan.exit_stage + 1
    tokens = num_frames * (height // config.patch_px) * (width // config.patch_px)
    shape = (config.num_layers, stages * num_slots * num_samples, tokens, config.num_heads, config.head_dim)
    pages = [torch.full(shape, torch.nan, dtype=model.dtype, device=model.device) for _ in range(2)]
    return SelfRollout(plan, num_samples, PagedCache(*pages), num_slots, inputs)


def _settle(
    run: SelfRollout, cell: Cell, flow: Tensor, noise: BatchNoise, levels: Sequence[Level]
) -> list[tuple[Cell, Tensor, Level]]:
    """Take in a denoise pass: pass its block on, and return the cache pass it leaves due, if any."""
    (stage, block), plan = cell, run.plan
    x = run.inputs[cell]
    x0 = predict_x0(x, flow, levels[stage])
    is_last = stage + 1 == plan.rollout.num_stages
    leaving = x0 if is_last else re_noise(x0, noise(block, stage + 1), levels[stage + 1])
    if stage == plan.exit_stage:
        run.x0.append(x0)
    else:
        run.inputs[stage + 1, block] = leaving
        del run.inputs[cell]
    if plan.page_stage(stage) != stage or block + 1 == plan.num_blocks:
        return []
    context = {
        Context.NEXT: (leaving, levels[stage + 1]),
        Context.CURRENT: (x, levels[stage]),
        Context.CLEAN: (x0, levels[-1]),
    }
    return [(cell, *context[plan.context])]


def _forward(
    model: CausalWan,
    run: SelfRollout,
    passes: Sequence[tuple[Cell, Tensor, Level]],
    num_cache: int,
    text: TextRows,
) -> Tensor:
    """Run passes, each of all samples, the first ``num_cache`` of them cache passes. Returns the others' flow."""
    plan, samples = run.plan, range(run.num_samples)
    lists, write_pages = [], []
    for n, ((stage, block), _, _) in enumerate(passes):
        kept = plan.page_stage(stage)
        seen = attended_blocks(plan.rollout, block)
        lists += [tuple(run.page(kept, earlier, sample) for earlier in seen) for sample in samples]
        write_pages += [run.page(kept, block, sample) for sample in samples if n < num_cache]
    num_passes, device = len(passes), model.device
    timesteps = torch.tensor([level.timestep for *_, level in passes], device=device)
    blocks = torch.tensor([block for (_, block), *_ in passes], device=device)
    inputs = ForwardInputs(
        latents_GFCYX=torch.cat([latents for _, latents, _ in passes]),
        timesteps_G=timesteps.repeat_interleave(run.num_samples),
        starts_G=blocks.repeat_interleave(run.num_samples) * plan.rollout.latent_frames_per_block,
        text=_repeated(text, num_passes),
        pages=page_table(lists, write_pages, device, page_tokens=run.cache.keys_NPLHK.shape[2]),
        num_cache=len(write_pages),
    )
    return model.compute(inputs, run.cache, grouped_attention).to(inputs.latents_GFCYX.dtype)


def _repeated(text: TextRows, times: int) -> TextRows:
    keys, values = (rows.repeat(times, 1, 1, 1, 1) for rows in (text.keys_GNTHK, text.values_GNTHK))
    return TextRows(keys, values, text.bias_GT.repeat(times, 1), text.num_rows_G.repeat(times))


def grouped_attention(
    q_GLHK: Tensor, k_GLHK: Tensor, v_GLHK: Tensor, k_pages_PLHK: Tensor, v_pages_PLHK: Tensor, table: PageTable
) -> Tensor:
    """``kernels.attention.formula.paged_attention`` with one call for all segments that read equally many pages.

    All tokens of a page count. There are gradients for queries, keys and values on every device; pages are read as they
    are.
    """
    groups: dict[int, list[int]] = {}
    for segment, count in enumerate(table.num_pages_G.tolist()):
        groups.setdefault(count, []).append(segment)
    outs, order = [], []
    for count, segments in groups.items():
        rows = torch.tensor(segments, device=q_GLHK.device)
        pages_GW = table.pages_GW[rows, :count].long()
        keys, values = (
            torch.cat([pool[pages_GW], own[rows][:, None]], dim=1).flatten(0, 1)
            for pool, own in ((k_pages_PLHK, k_GLHK), (v_pages_PLHK, v_GLHK))
        )
        dense = joined_attention(len(segments), Mask.BIDIRECTIONAL)
        outs.append(dense(q_GLHK[rows], keys, values, k_pages_PLHK, v_pages_PLHK, table))
        order += segments
    return torch.cat(outs)[torch.tensor(order, device=q_GLHK.device).argsort()]
