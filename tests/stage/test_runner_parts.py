"""A chain cut into parts, videos restored from saved latents, and videos nobody waits for any more."""

import pytest
import torch
from torch import Tensor

from engine.config import Order, RolloutConfig
from engine.engine_config import Keep
from engine.front.log import BlockLog, MemoryStore
from engine.law.window import attended_blocks, writes_pages
from engine.messages import CloseTicket, LatentsSaved, OpenTicket
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.trace import Phase
from tests.stage import micro
from tests.stage.micro import Bench, chain, oracle

pytestmark = pytest.mark.slow

CUTS = [((0, 1), (2, 3)), ((0,), (1,), (2,), (3,)), ((0, 1, 2), (3,))]
LAST_BLOCK = 7


# --- parts of a chain ---


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("max_segments", [1, 2, 8])
def test_a_chain_in_parts_gives_what_one_runner_gives(cuts: tuple[tuple[int, ...], ...], max_segments: int) -> None:
    whole = Bench(micro.rollout(), max_segments=max_segments)
    parts = chain(micro.rollout(), cuts, max_segments=max_segments)
    for bench in (whole, parts[0]):
        bench.open("a", seed=5, prompt=1)
        bench.open("b", seed=6, prompt=2)
        for block in range(6):
            if block == 3:
                bench.prompt("b", 1)
            bench.block("a", block)
            bench.block("b", block)
        bench.close("a")
        bench.close("b")
        bench.run()
    atol = 0 if max_segments == 1 else 2e-6  # segment by segment there is nothing to order otherwise
    assert whole.latents.keys() == parts[-1].latents.keys() and len(whole.latents) == 12
    for key, expected in whole.latents.items():
        torch.testing.assert_close(parts[-1].latents[key], expected, atol=atol, rtol=0)
    for block, expected in enumerate(oracle(micro.rollout(), 6)):
        torch.testing.assert_close(parts[-1].latents["a", block], expected, atol=1e-4, rtol=0)
    assert [part.pool.num_used for part in parts] == [0] * len(parts)


@pytest.mark.parametrize("cuts", CUTS)
def test_every_part_executes_the_tickets_in_one_order(cuts: tuple[tuple[int, ...], ...]) -> None:
    parts = chain(micro.rollout(), cuts)
    parts[0].open("a")
    parts[0].block("a", 0)
    parts[0].open("b", seed=6)
    parts[0].prompt("a", 2)
    parts[0].block("b", 0)
    parts[0].block("a", 1)
    parts[0].close("a")
    parts[0].block("b", 1)
    parts[0].run()
    assert len(parts[0].tickets) == 8
    assert all(part.tickets == parts[0].tickets for part in parts)


def test_block_first_stays_on_one_runner() -> None:
    with pytest.raises(AssertionError, match="pages of another worker"):
        Bench(micro.rollout(Order.BLOCK_FIRST), stages=(0, 1))


def test_stages_of_a_runner_are_neighbours() -> None:
    with pytest.raises(AssertionError, match="not adjacent"):
        Bench(micro.rollout(), stages=(0, 2))


# --- restoring ---


def saved_by(benches: list[Bench], config: RolloutConfig) -> BlockLog:
    """What the front keeps of video a, to restore it as video b."""
    log = BlockLog("b", config, Keep(), MemoryStore())
    log.set_prompt(0, "x", to_bytes(micro.embedding(1)))
    for bench in benches:
        for told in bench.told:
            assert isinstance(told, LatentsSaved)
            log.save(told)
    return log


def undisturbed(config: RolloutConfig, num_layers: int, seed: int = 5) -> Bench:
    bench = Bench(config, max_segments=1, num_layers=num_layers)
    bench.open("a", seed)
    for block in range(LAST_BLOCK + 3):
        bench.block("a", block, save=True)
    bench.run()
    return bench


def go_on(bench: Bench, log: BlockLog, *, seed: int = 5) -> None:
    """Restore video b to where ``LAST_BLOCK`` is the next block, and make that and two more."""
    bench.open("b", seed)
    for ticket in log.restoring_tickets(LAST_BLOCK):
        bench.runner.submit(ticket)
    for block in range(LAST_BLOCK, LAST_BLOCK + 3):
        bench.block("b", block)
    bench.run()


def differences(first: Bench, restored: Bench) -> Tensor:
    """Of the blocks after the loss."""
    pairs = [(first.latents["a", b], restored.latents["b", b]) for b in range(LAST_BLOCK, LAST_BLOCK + 3)]
    return torch.stack([(one - other).abs().max() for one, other in pairs])


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (2, 0), (3, 0), (3, 1), (5, 2), (3, 2)])
def test_one_layer_is_restored_exactly(order: Order, window: int, sinks: int) -> None:
    """Keys and values of the first layer come from the saved latents alone, whatever they attended to."""
    config = micro.rollout(order, window, sinks)
    first = undisturbed(config, num_layers=1)
    restored = Bench(config, max_segments=1, num_layers=1)
    go_on(restored, saved_by([first], config))
    assert restored.latents.keys() == {("b", block) for block in range(LAST_BLOCK, LAST_BLOCK + 3)}
    assert torch.equal(differences(first, restored), torch.zeros(3))
    restored.close("b")
    restored.run()
    assert restored.pool.num_used == 0


def test_a_window_of_the_own_block_is_restored_exactly() -> None:
    config = micro.rollout(window_blocks=1)
    first, restored = undisturbed(config, num_layers=2), Bench(config, max_segments=1)
    go_on(restored, saved_by([first], config))
    assert torch.equal(differences(first, restored), torch.zeros(3))


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("window", "sinks"), [(2, 0), (3, 0), (3, 1), (5, 2)])
def test_deeper_layers_are_restored_nearly_and_forget_the_loss(order: Order, window: int, sinks: int) -> None:
    config = micro.rollout(order, window, sinks)
    first, stranger = undisturbed(config, num_layers=2), undisturbed(config, num_layers=2, seed=6)
    restored, misled = Bench(config, max_segments=1), Bench(config, max_segments=1)
    go_on(restored, saved_by([first], config))
    go_on(misled, saved_by([stranger], config))
    difference = differences(first, restored)
    assert bool(torch.isfinite(difference).all())
    assert 0 < difference[0] < differences(first, misled)[0] / 2
    assert difference[2] < difference[0]


@pytest.mark.parametrize("cuts", CUTS)
def test_parts_restore_what_one_runner_restores(cuts: tuple[tuple[int, ...], ...]) -> None:
    config = micro.rollout(window_blocks=4, sink_blocks=1)
    whole, parts = Bench(config, max_segments=1), chain(config, cuts, max_segments=1)
    log = saved_by([undisturbed(config, num_layers=2)], config)
    go_on(whole, log)
    go_on(parts[0], log)
    assert len(whole.latents) == 3
    assert all(torch.equal(parts[-1].latents[key], expected) for key, expected in whole.latents.items())


def test_parts_save_what_one_runner_saves() -> None:
    config, saved = micro.rollout(), []
    for benches in ([Bench(config, max_segments=1)], chain(config, CUTS[0], max_segments=1)):
        benches[0].open("a")
        for block in range(4):
            benches[0].block("a", block, last=block == 3, save=block > 0)
        benches[0].run()
        told = [told for bench in benches for told in bench.told if isinstance(told, LatentsSaved)]
        saved.append({(one.block, one.stage): one.latents for one in told})
        final = benches[-1].latents["a", 2]
        assert torch.equal(to_tensor(saved[-1][2, 3]), final), "the last stage saves the finished block"
    assert saved[0] == saved[1]
    assert saved[0].keys() == {(block, stage) for block in (1, 2) for stage in range(4)}


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 8])
def test_a_restored_video_and_one_beside_it_do_not_touch_each_other(order: Order, max_segments: int) -> None:
    config = micro.rollout(order)
    log = saved_by([undisturbed(config, num_layers=2)], config)
    alone, beside = (Bench(config, max_segments=max_segments) for _ in range(2))
    go_on(alone, log)
    beside.open("c", seed=6, prompt=2)
    for block in range(3):
        beside.block("c", block)
    beside.open("b")
    for ticket in log.restoring_tickets(LAST_BLOCK):
        beside.runner.submit(ticket)
    for block in range(3):
        beside.block("b", LAST_BLOCK + block)
        beside.block("c", 3 + block)
    beside.run()
    for key, expected in alone.latents.items():
        torch.testing.assert_close(beside.latents[key], expected, atol=2e-6, rtol=0)
    for block, expected in enumerate(oracle(config, 6, seed=6, prompt=2)):
        torch.testing.assert_close(beside.latents["c", block], expected, atol=1e-4, rtol=0)


def test_a_video_that_is_cancelled_while_it_is_restored_leaves_no_page() -> None:
    config = micro.rollout(window_blocks=4)
    log = saved_by([undisturbed(config, num_layers=2)], config)
    bench = Bench(config)
    bench.open("b")
    for ticket in log.restoring_tickets(LAST_BLOCK):
        bench.runner.submit(ticket)
    bench.block("b", LAST_BLOCK)
    with torch.inference_mode():
        assert bench.runner.tick()
    assert bench.pool.num_used > 0
    bench.runner.cancel("b")
    bench.close("b")
    bench.run()
    assert bench.latents == {} and bench.pool.num_used == 0
    assert isinstance(bench.tickets[0], OpenTicket) and bench.tickets[-1] == CloseTicket(video="b")
    assert len(bench.tickets) == len(attended_blocks(config, LAST_BLOCK)) + 3


# --- cancelling ---


def phases(bench: Bench, video: str) -> list[Phase]:
    return [span.phase for span in bench.timer.take() if span.video == video]


def test_due_cache_passes_of_a_cancelled_video_are_dropped() -> None:
    bench = Bench(micro.rollout(), max_segments=1)
    bench.open("a")
    bench.block("a", 0)
    with torch.inference_mode():
        for _ in range(4):
            assert bench.runner.tick()
    assert ("a", 0) in bench.latents
    bench.runner.cancel("a")
    bench.run()
    assert phases(bench, "a") == [Phase.DENOISE] * 4
    assert bench.pool.num_used == 0


def test_pages_come_back_at_the_close_ticket() -> None:
    bench = Bench(micro.rollout())
    bench.open("a")
    for block in range(3):
        bench.block("a", block)
    bench.run()
    held = bench.pool.num_used
    writers = [stage for stage in range(4) if writes_pages(micro.rollout(), stage)]
    assert held == 2 * len(writers)
    bench.runner.cancel("a")
    bench.block("a", 3)
    bench.run()
    assert bench.pool.num_used == held and ("a", 3) not in bench.latents
    bench.close("a")
    bench.run()
    assert bench.pool.num_used == 0


def test_a_name_may_come_again_after_its_close() -> None:
    bench = Bench(micro.rollout())
    for _ in range(2):
        bench.latents.clear()
        bench.open("a")
        for block in range(3):
            bench.block("a", block)
        bench.run()
        for block, expected in enumerate(oracle(micro.rollout(), 3)):
            torch.testing.assert_close(bench.latents["a", block], expected, atol=1e-4, rtol=0)
        bench.runner.cancel("a")
        bench.close("a")
        bench.run()


@pytest.mark.parametrize("where", [0, 1])
def test_one_part_may_know_of_a_cancel_before_the_other(where: int) -> None:
    """A part that does not know yet computes void latents; the video beside it never sees them."""
    parts = chain(micro.rollout(), CUTS[0], max_segments=1)
    parts[0].open("a")
    parts[0].open("b", seed=6, prompt=2)
    for block in range(2):
        parts[0].block("a", block)
        parts[0].block("b", block)
    parts[0].run()
    parts[where].runner.cancel("a")
    for block in range(2, 5):
        parts[0].block("a", block)
        parts[0].block("b", block)
    parts[0].run()
    late = [parts[-1].latents.get(("a", block)) for block in range(2, 5)]
    assert all(latents is None if where else latents is not None and bool(latents.isnan().all()) for latents in late)
    parts[1 - where].runner.cancel("a")
    parts[0].close("a")
    parts[0].close("b")
    parts[0].run()
    assert [part.pool.num_used for part in parts] == [0, 0]
    for block, expected in enumerate(oracle(micro.rollout(), 5, seed=6, prompt=2)):
        torch.testing.assert_close(parts[-1].latents["b", block], expected, atol=1e-4, rtol=0)
