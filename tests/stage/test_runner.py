"""The runner against the oracle, and what tickets do on their way."""

import gc

import psutil
import pytest
import torch
from torch import Tensor

from engine.config import Order, RolloutConfig
from engine.messages import CloseTicket
from engine.oracle import roll_out
from engine.schedule import pages_per_session
from engine.stage.noise import KeyedNoise
from tests.stage import micro
from tests.stage.micro import Bench

SHAPE = (3, micro.TRANSFORMER.in_dim, micro.HEIGHT, micro.WIDTH)


def oracle(config: RolloutConfig, num_blocks: int, seed: int = 5, prompt: int = 1) -> list[Tensor]:
    noise = KeyedNoise(micro.CPU)
    padded = torch.zeros(micro.TRANSFORMER.text_len, micro.TRANSFORMER.text_dim)
    padded[:3] = micro.embedding(prompt)
    with torch.inference_mode():
        result = roll_out(micro.model(), config, lambda b, s: noise(seed, b, s, SHAPE), padded, num_blocks)
    return [result.latents[block] for block in range(num_blocks)]


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 3, 8])
@pytest.mark.parametrize("sink_blocks", [0, 1])
def test_equals_the_oracle(order: Order, max_segments: int, sink_blocks: int) -> None:
    config = micro.rollout(order, sink_blocks=sink_blocks)
    bench = Bench(config, max_segments=max_segments)
    bench.open("a")
    for block in range(7):
        bench.block("a", block, last=block == 6)
    bench.close("a")
    bench.run()
    for block, expected in enumerate(oracle(config, 7)):
        torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)
    assert bench.pool.num_used == 0


def test_tickets_that_come_one_by_one_give_the_same_as_all_at_once() -> None:
    config = micro.rollout()
    bench = Bench(config)
    bench.open("a")
    for block in range(5):
        bench.block("a", block)
        bench.run()
    for block, expected in enumerate(oracle(config, 5)):
        torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_segments", [2, 8])
def test_sessions_side_by_side_do_not_touch_each_other(max_segments: int) -> None:
    config = micro.rollout()
    bench = Bench(config, max_segments=max_segments)
    bench.open("a", seed=5, prompt=1)
    bench.open("b", seed=6, prompt=2)
    for block in range(5):
        bench.block("a", block)
        bench.block("b", block)
    bench.run()
    for session, seed, prompt in (("a", 5, 1), ("b", 6, 2)):
        for block, expected in enumerate(oracle(config, 5, seed, prompt)):
            torch.testing.assert_close(bench.latents[session, block], expected, atol=1e-4, rtol=0)


def test_a_prompt_change_takes_effect_at_its_block_and_not_before() -> None:
    plain, changed = Bench(micro.rollout(), max_segments=8), Bench(micro.rollout(), max_segments=8)
    for bench in (plain, changed):
        bench.open("a")
        for block in range(5):
            if bench is changed and block == 3:
                bench.prompt("a", 2)
            bench.block("a", block)
        bench.run()
    for block in range(3):
        assert torch.equal(plain.latents["a", block], changed.latents["a", block])
    assert not torch.allclose(plain.latents["a", 3], changed.latents["a", 3], atol=1e-3)


def test_a_cancelled_session_is_not_computed_and_frees_its_pages() -> None:
    bench = Bench(micro.rollout())
    bench.open("a")
    bench.open("b")
    for block in range(3):
        bench.block("a", block)
    bench.run()
    assert bench.pool.num_used > 0
    for block in range(3, 6):
        bench.block("a", block)
        bench.block("b", block - 3)
    bench.runner.cancel("a")
    bench.close("a")
    bench.run()
    assert ("a", 3) not in bench.latents
    for block, expected in enumerate(oracle(micro.rollout(), 3)):
        torch.testing.assert_close(bench.latents["b", block], expected, atol=1e-4, rtol=0)
    assert CloseTicket(session="a") in bench.tickets
    bench.close("b")
    bench.run()
    assert bench.pool.num_used == 0


@pytest.mark.parametrize("order", list(Order))
def test_a_session_never_takes_more_pages_than_admission_counts(order: Order) -> None:
    config = micro.rollout(order)
    bench = Bench(config, num_pages=pages_per_session(config))
    bench.open("a")
    for block in range(12):
        bench.block("a", block)
    bench.run()
    writers = pages_per_session(config) // config.window_blocks
    assert bench.pool.num_used == writers * (config.window_blocks - 1)  # the last page is taken during a forward


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_blocks_in_flat_memory() -> None:
    config = micro.rollout()
    bench = Bench(config, num_pages=pages_per_session(config))
    bench.open("a")
    process, resident_bytes = psutil.Process(), {}
    for block in range(10_000):
        bench.block("a", block)
        if block % 4 == 3:
            bench.run()
            assert torch.isfinite(bench.latents["a", block]).all()
            bench.latents.clear()
            bench.tickets.clear()
        if block in {999, 9_999}:
            gc.collect()
            resident_bytes[block] = process.memory_info().rss
    assert bench.pool.num_used < pages_per_session(config)
    assert resident_bytes[9_999] - resident_bytes[999] < 8 * 2**20
