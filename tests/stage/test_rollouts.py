"""Every feature of a roll-out, alone and combined, through the runner's pages and tickets, against the oracle."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from engine.config import Order, PromptEffect, RolloutConfig, SinkPositions, Transition
from engine.law.window import pages_per_video
from engine.messages import BlockTicket, ContextTicket, LatentsSaved
from engine.model.tensor_bytes import to_bytes
from tests.stage.micro import Bench, block_shape, chain, oracle

NUM_BLOCKS = 8


def block_first(**values: object) -> RolloutConfig:
    return RolloutConfig(order=Order.BLOCK_FIRST, **{"window_latent_frames": 9, **values})  # type: ignore[arg-type]


def step_first(**values: object) -> RolloutConfig:
    return RolloutConfig(**{"window_latent_frames": 9, **values})  # type: ignore[arg-type]


ROLLOUTS = {
    "raw steps": step_first(denoising_steps=(1000, 757, 522), raw_steps=True, timestep_shift=8.0),
    "one step": step_first(denoising_steps=(1000,)),
    "five steps": step_first(denoising_steps=(1000, 800, 600, 400, 200)),
    "ode": step_first(transition=Transition.ODE),
    "clean context": step_first(clean_context=True, context_timestep=20),
    "one finished alone": step_first(block_first_blocks=1),
    "three finished alone": step_first(block_first_blocks=3),
    "a picture first": step_first(first_block_latent_frames=1),
    "a picture first, alone": step_first(first_block_latent_frames=1, block_first_blocks=2),
    "frame-wise": step_first(latent_frames_per_block=1, window_latent_frames=4),
    "moving sinks": step_first(window_latent_frames=12, sink_latent_frames=3, sink_positions=SinkPositions.WINDOW),
    "nothing but moving sinks": step_first(sink_latent_frames=6, sink_positions=SinkPositions.WINDOW),
    "block-first, one step behind four": block_first(denoising_steps=(1000,), first_block_steps=(1000, 750, 500, 250)),
    "block-first, four steps behind two": block_first(first_block_steps=(1000, 500)),
    "block-first, ode": block_first(transition=Transition.ODE),
    "block-first, a picture first": block_first(first_block_latent_frames=2),
    "block-first, frame-wise": block_first(latent_frames_per_block=1, window_latent_frames=3),
    "block-first, moving sinks": block_first(
        window_latent_frames=12, sink_latent_frames=6, sink_positions=SinkPositions.WINDOW
    ),
}
RE_ENCODED = {
    f"{change}, {positions} {sinks} of {window}": block_first(
        window_latent_frames=3 * window, sink_latent_frames=3 * sinks, sink_positions=positions, prompt_change=change
    )
    for change in (PromptEffect.RE_ENCODE, PromptEffect.RE_ENCODE_ALL)
    for positions in SinkPositions
    for window, sinks in ((4, 1), (4, 2), (3, 0))
}
CHANGES = [{1: 2}, {4: 2}, {3: 2, 4: 3}, {5: 2, 7: 3}]


def ticket_of(config: RolloutConfig, block: int, initial: list[Tensor]) -> BlockTicket:
    return BlockTicket(
        video="a",
        block=block,
        num_frames=12,
        last=block == NUM_BLOCKS - 1,
        opening=block == len(initial),
        alone=len(initial) <= block < config.block_first_blocks,
        given=to_bytes(initial[block]) if block < len(initial) else None,
    )


def run_as_the_front_would(
    config: RolloutConfig, benches: list[Bench], initial: list[Tensor], changes: Mapping[int, int]
) -> list[Tensor]:
    head, tail = benches[0], benches[-1]
    head.open("a")
    for block in range(NUM_BLOCKS):
        if block in changes:
            head.prompt("a", changes[block])
        ticket = ticket_of(config, block, initial)
        head.runner.submit(ticket)
        if ticket.alone:
            head.run()
            saved = next(m for m in tail.told if isinstance(m, LatentsSaved) and m.block == block)
            head.runner.submit(ContextTicket(video="a", block=block, latents=saved.latents))
    head.close("a")
    head.run()
    assert all(bench.pool.num_used == 0 for bench in benches)
    return [tail.latents["a", block] for block in range(NUM_BLOCKS)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ROLLOUTS)
@pytest.mark.parametrize(("max_segments", "num_initial"), [(1, 2), (2, 0), (8, 0)])
def test_equals_the_oracle(name: str, max_segments: int, num_initial: int) -> None:
    config = ROLLOUTS[name]
    initial = [torch.randn(block_shape(config, block)) for block in range(num_initial)]
    bench = Bench(config, max_segments=max_segments, num_pages=pages_per_video(config))
    found = run_as_the_front_would(config, [bench], initial, {})
    assert_equal(found, oracle(config, NUM_BLOCKS, initial=initial))


@pytest.mark.parametrize("name", [name for name, config in ROLLOUTS.items() if config.order == Order.STEP_FIRST])
def test_equals_the_oracle_on_a_worker_a_stage(name: str) -> None:
    config = ROLLOUTS[name]
    initial = [torch.randn(block_shape(config, 0))]
    benches = chain(config, tuple((stage,) for stage in range(config.num_stages)))
    found = run_as_the_front_would(config, benches, initial, {4: 2})
    assert_equal(found, oracle(config, NUM_BLOCKS, initial=initial, changes={4: 2}))


@pytest.mark.parametrize("name", RE_ENCODED)
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_what_a_new_prompt_encodes_again_equals_the_oracle(name: str, changes: dict[int, int]) -> None:
    config = RE_ENCODED[name]
    bench = Bench(config, max_segments=2, num_pages=pages_per_video(config))
    assert_equal(run_as_the_front_would(config, [bench], [], changes), oracle(config, NUM_BLOCKS, changes=changes))


@pytest.mark.parametrize("name", [*ROLLOUTS, *RE_ENCODED])
def test_each_feature_changes_the_video(name: str) -> None:
    """Or nothing above would show that it is there."""
    config = (ROLLOUTS | RE_ENCODED)[name]
    plain = step_first() if config.order == Order.STEP_FIRST else block_first()
    found, without = (oracle(each, NUM_BLOCKS, changes={5: 2}) for each in (config, plain))
    assert any(
        ours.shape != theirs.shape or float((ours - theirs).abs().max()) > 1e-3
        for ours, theirs in zip(found, without, strict=True)
    )
