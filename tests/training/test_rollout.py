"""Self-rollouts against the oracle, and where their gradients go."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from engine.config import Order, RolloutConfig
from engine.law.schedule import noise_levels
from engine.law.step import predict_x0, re_noise
from engine.law.window import attended_blocks
from engine.model.dit import CausalWan
from engine.model.segments import TextRows, stack_text
from engine.oracle import roll_out as oracle_roll_out
from engine.stage.noise import KeyedNoise
from kernels.attention.formula import paged_attention_reference
from kernels.attention.table import page_table
from tests.model.oracle_pass import BlockSeen, oracle_pass
from tests.stage.micro import CPU, HEIGHT, TRANSFORMER, WIDTH, embedding, model, rollout
from training.rollout import Context, Plan, SelfRollout, exit_x0, grouped_attention, roll_out, sample_noise

pytestmark = pytest.mark.slow

SHAPE = (3, TRANSFORMER.in_dim, HEIGHT, WIDTH)
SEEDS, PROMPTS, NUM_BLOCKS = (5, 6), (1, 2), 5
CONFIGS = [(Order.STEP_FIRST, context) for context in Context] + [(Order.BLOCK_FIRST, Context.CLEAN)]
NOISE = sample_noise(KeyedNoise(CPU), SEEDS, SHAPE)


def make_plan(order: Order, context: Context, exit_stage: int = 3) -> Plan:
    return Plan(rollout=rollout(order), num_blocks=NUM_BLOCKS, exit_stage=exit_stage, context=context)


def text_of(network: CausalWan) -> TextRows:
    return stack_text([network.encode_context(embedding(prompt)) for prompt in PROMPTS])


def run(network: CausalWan, plan: Plan, *, keeps_pages: bool = True) -> SelfRollout:
    return roll_out(network, plan, NOISE, text_of(network), keeps_pages=keeps_pages)


def twin(network: CausalWan, plan: Plan, sample: int) -> list[Tensor]:
    """The exit stage's predictions for one sample, in nested loops, cut to the gradients that should flow."""
    loops = step_first_twin if plan.rollout.order == Order.STEP_FIRST else block_first_twin
    text = pad(embedding(PROMPTS[sample]), (0, 0, 0, TRANSFORMER.text_len - 3))
    return loops(network, plan, sample, text)


def step_first_twin(network: CausalWan, plan: Plan, sample: int, text: Tensor) -> list[Tensor]:
    noise, levels = KeyedNoise(CPU), noise_levels(plan.rollout)
    blocks = [noise(SEEDS[sample], block, 0, SHAPE) for block in range(plan.num_blocks)]
    exits: list[Tensor] = []
    for stage in range(plan.exit_stage + 1):
        history: dict[int, BlockSeen] = {}
        exits, left = [], []
        for block, x in enumerate(blocks):
            seen = [history[earlier] for earlier in attended_blocks(plan.rollout, block)]
            x0 = predict_x0(x, oracle_pass(network, x, levels[stage], block, seen, text)[0], levels[stage])
            exits.append(x0)
            fresh = noise(SEEDS[sample], block, stage + 1, SHAPE)
            is_last = stage + 1 == plan.rollout.num_stages
            left.append((x0 if is_last else re_noise(x0, fresh, levels[stage + 1])).detach())
            read = {
                Context.NEXT: (left[-1], levels[stage + 1]),
                Context.CURRENT: (x, levels[stage]),
                Context.CLEAN: (x0.detach(), levels[-1]),
            }
            with torch.no_grad():
                _, history[block] = oracle_pass(network, *read[plan.context], block, seen, text)
        blocks = left
    return exits


def block_first_twin(network: CausalWan, plan: Plan, sample: int, text: Tensor) -> list[Tensor]:
    noise, levels = KeyedNoise(CPU), noise_levels(plan.rollout)
    history: dict[int, BlockSeen] = {}
    exits: list[Tensor] = []
    for block in range(plan.num_blocks):
        seen = [history[earlier] for earlier in attended_blocks(plan.rollout, block)]
        x = x0 = noise(SEEDS[sample], block, 0, SHAPE)
        for stage in range(plan.exit_stage + 1):
            if stage:
                x = re_noise(x0.detach(), noise(SEEDS[sample], block, stage, SHAPE), levels[stage])
            x0 = predict_x0(x, oracle_pass(network, x, levels[stage], block, seen, text)[0], levels[stage])
        exits.append(x0)
        with torch.no_grad():
            _, history[block] = oracle_pass(network, x0.detach(), levels[-1], block, seen, text)
    return exits


@pytest.mark.parametrize("order", Order)
def test_a_whole_roll_out_is_the_oracle_s(order: Order) -> None:
    network, config = model(), rollout(order)
    got = run(network, make_plan(order, Context.NEXT if order == Order.STEP_FIRST else Context.CLEAN)).x0_BNFCYX
    for sample, (seed, prompt) in enumerate(zip(SEEDS, PROMPTS, strict=True)):
        noise = KeyedNoise(CPU)
        text = pad(embedding(prompt), (0, 0, 0, TRANSFORMER.text_len - 3))
        want = oracle_roll_out(network, config, lambda b, s, k=seed, n=noise: n(k, b, s, SHAPE), text, NUM_BLOCKS)
        for block in range(NUM_BLOCKS):
            torch.testing.assert_close(got[sample, block], want.latents[block], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("order", "context"), CONFIGS)
@pytest.mark.parametrize("exit_stage", [0, 2, 3])
def test_every_context_and_exit_is_that_of_nested_loops(order: Order, context: Context, exit_stage: int) -> None:
    network, plan = model(), make_plan(order, context, exit_stage)
    got = run(network, plan).x0_BNFCYX
    for sample in range(len(SEEDS)):
        with torch.no_grad():
            want = torch.stack(twin(network, plan, sample))
        torch.testing.assert_close(got[sample], want, atol=2e-5, rtol=1e-5)


def test_contexts_differ_from_each_other() -> None:
    made = [run(model(), make_plan(*case)).x0_BNFCYX[:, 2] for case in CONFIGS]
    for index, one in enumerate(made):
        assert all((one - other).abs().max() > 1e-3 for other in made[:index])


def test_pages_of_a_window_are_enough_for_a_video_of_any_length() -> None:
    plan = make_plan(Order.STEP_FIRST, Context.NEXT)
    kept, forgetful = run(model(), plan), run(model(), plan, keeps_pages=False)
    torch.testing.assert_close(kept.x0_BNFCYX, forgetful.x0_BNFCYX, atol=0, rtol=0)
    assert forgetful.cache.keys_NPLHK.shape[1] == 4 * plan.rollout.window_blocks * len(SEEDS)


@pytest.mark.parametrize(("order", "context"), CONFIGS)
def test_gradients_are_those_of_the_exit_stage_alone(order: Order, context: Context) -> None:
    network, plan = model().requires_grad_(True), make_plan(order, context, exit_stage=1)
    weights = torch.randn(len(SEEDS), NUM_BLOCKS, *SHAPE, generator=torch.Generator().manual_seed(3))
    text = text_of(network)
    done = roll_out(network, plan, NOISE, text)
    x0 = exit_x0(network, done, text)
    torch.testing.assert_close(x0, done.x0_BNFCYX, atol=1e-5, rtol=1e-5)
    (x0 * weights).sum().backward()
    got = {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad()
    for sample in range(len(SEEDS)):
        (torch.stack(twin(network, plan, sample)) * weights[sample]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            got[name], parameter.grad, atol=2e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_no_history_hangs_on_what_the_exit_stage_reads() -> None:
    network = model().requires_grad_(True)
    done = run(network, make_plan(Order.STEP_FIRST, Context.NEXT, exit_stage=2))
    tensors = [done.cache.keys_NPLHK, done.cache.values_NPLHK, *done.inputs.values(), *done.x0]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert set(done.inputs) == {(2, block) for block in range(NUM_BLOCKS)}


def test_grouped_attention_is_the_twin_s() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(4, 3, 2, 8, generator=generator) for _ in range(3))
    pools = [torch.randn(5, 3, 2, 8, generator=generator) for _ in range(2)]
    table = page_table([(0, 4), (), (2, 1), (3,)], (), CPU, page_tokens=q.shape[1])
    want = paged_attention_reference(q, k, v, *pools, table)
    torch.testing.assert_close(grouped_attention(q, k, v, *pools, table), want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"num_blocks": 0}, "num_blocks"),
        ({"exit_stage": 4}, "no stage 4"),
        ({"rollout": rollout(Order.BLOCK_FIRST)}, "clean context only"),
        ({"rollout": RolloutConfig(sink_latent_frames=3)}, "sinks"),
    ],
)
def test_what_is_not_defined_is_refused(broken: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(make_plan(Order.STEP_FIRST, Context.NEXT), **broken)
