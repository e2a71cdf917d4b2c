"""Which device runs which stages: every stage once, neighbours together, the slowest placement as quick as can be."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Order, RolloutConfig
from engine.law.placement import WORTH, PassCosts, Placement, Plan, place

HIAR = RolloutConfig()
BLOCK_FIRST = replace(HIAR, order=Order.BLOCK_FIRST)
EVEN = PassCosts(denoise_s=(0.2, 0.4, 0.6, 0.8), decode_s=0.1)


def devices(count: int) -> tuple[str, ...]:
    return tuple(f"cuda:{index}" for index in range(count))


def rollout_of(num_stages: int, order: Order = Order.STEP_FIRST) -> RolloutConfig:
    return RolloutConfig(denoising_steps=tuple(range(1000, 1000 - num_stages, -1)), order=order)


def names(plan: Plan) -> list[list[tuple[str, ...]]]:
    """What each worker of each chain runs, text aside."""
    return [[tuple(name for name in placement.names if name != "text") for placement in chain] for chain in plan.chains]


def load_s(costs: PassCosts, num_stages: int, begin: int, end: int) -> float:
    """Seconds a block of links ``begin .. end - 1``, where link ``num_stages`` is decode."""
    denoise = [link for link in range(begin, end) if link < num_stages]
    return (costs.denoise_s[len(denoise) - 1] if denoise else 0.0) + (costs.decode_s if end == num_stages + 1 else 0.0)


def all_cuts(num_stages: int, num_parts: int) -> list[tuple[int, ...]]:
    """Every way to cut the chain: the end of each placement."""
    return [(*inner, num_stages + 1) for inner in combinations(range(1, num_stages + 1), num_parts - 1)]


def assert_runs_every_stage_once(chain: tuple[Placement, ...], num_stages: int) -> None:
    assert [stage for placement in chain for stage in placement.stages] == list(range(num_stages))
    assert [placement.decodes for placement in chain] == [False] * (len(chain) - 1) + [True]
    assert all(placement.stages or placement.decodes for placement in chain), "a worker has nothing to do"


def assert_linked(chain: tuple[Placement, ...]) -> None:
    ranks = [placement.rank for placement in chain]
    assert ranks == list(range(ranks[0], ranks[0] + len(ranks)))
    assert [placement.previous for placement in chain] == [None, *ranks[:-1]]
    assert [placement.next for placement in chain] == [*ranks[1:], None]


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("num_devices", range(1, 17))
def test_every_chain_is_whole_and_linked(order: Order, num_devices: int) -> None:
    plan = place(replace(HIAR, order=order), devices(num_devices), EVEN)
    assert [placement.rank for placement in plan.placements] == list(range(num_devices))
    assert [placement.device for placement in plan.placements] == list(devices(num_devices))
    for number, chain in enumerate(plan.chains):
        assert {placement.chain for placement in chain} == {number}
        assert_runs_every_stage_once(chain, HIAR.num_stages)
        assert_linked(chain)
    assert sum(placement.embeds_text for placement in plan.placements) == 1


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("num_devices", range(1, 17))
def test_chains_share_the_devices_evenly_and_are_as_few_as_can_be(order: Order, num_devices: int) -> None:
    lengths = [len(chain) for chain in place(replace(HIAR, order=order), devices(num_devices), EVEN).chains]
    longest = 5 if order == Order.STEP_FIRST else 2
    assert len(lengths) == -(-num_devices // longest)
    assert max(lengths) <= longest
    assert max(lengths) - min(lengths) <= 1


def test_one_device_runs_all() -> None:
    (placement,) = place(HIAR, ("cpu",), EVEN).placements
    assert (placement.device, placement.stages, placement.decodes, placement.embeds_text) == (
        "cpu",
        (0, 1, 2, 3),
        True,
        True,
    )
    assert placement.names == ("text", "denoise[0]", "denoise[1]", "denoise[2]", "denoise[3]", "decode")
    assert (placement.previous, placement.next) == (None, None)
    assert placement.load_s == pytest.approx(0.9)


def test_two_devices_share_the_stages() -> None:
    plan = place(HIAR, devices(2), EVEN)
    assert names(plan) == [[("denoise[0]", "denoise[1]"), ("denoise[2]", "denoise[3]", "decode")]]
    assert plan.block_s(0) == pytest.approx(0.5)


def test_a_device_for_each_stage_decodes_on_the_last() -> None:
    plan = place(HIAR, devices(4), EVEN)
    assert names(plan) == [[("denoise[0]",), ("denoise[1]",), ("denoise[2]",), ("denoise[3]", "decode")]]
    assert plan.block_s(0) == pytest.approx(0.3)


def test_one_device_more_takes_the_decode() -> None:
    plan = place(HIAR, devices(5), EVEN)
    assert names(plan) == [[("denoise[0]",), ("denoise[1]",), ("denoise[2]",), ("denoise[3]",), ("decode",)]]
    assert plan.block_s(0) == pytest.approx(0.2)
    assert [placement.rank for placement in plan.placements if placement.embeds_text] == [4], (
        "the quietest worker embeds text"
    )


def test_more_devices_become_further_chains() -> None:
    plan = place(HIAR, devices(8), EVEN)
    assert names(plan) == 2 * [[("denoise[0]",), ("denoise[1]",), ("denoise[2]",), ("denoise[3]", "decode")]]
    assert [placement.device for placement in plan.chains[1]] == ["cuda:4", "cuda:5", "cuda:6", "cuda:7"]
    assert [len(chain) for chain in place(HIAR, devices(11), EVEN).chains] == [3, 4, 4]


def test_a_costly_decode_moves_the_cut() -> None:
    costs = replace(EVEN, decode_s=0.35)
    assert names(place(HIAR, devices(2), costs)) == [
        [("denoise[0]", "denoise[1]", "denoise[2]"), ("denoise[3]", "decode")]
    ]
    costs = replace(EVEN, decode_s=0.9)
    assert names(place(HIAR, devices(2), costs)) == [
        [("denoise[0]", "denoise[1]", "denoise[2]", "denoise[3]"), ("decode",)]
    ]
    costs = replace(EVEN, decode_s=0.35)
    assert names(place(HIAR, devices(4), costs)) == [
        [("denoise[0]",), ("denoise[1]",), ("denoise[2]", "denoise[3]"), ("decode",)]
    ]


def test_of_equal_cuts_the_earlier_parts_are_shorter() -> None:
    even_with_decode = PassCosts(denoise_s=(1.0, 2.0, 3.0, 4.0), decode_s=1.0)
    plan = place(HIAR, devices(2), even_with_decode)
    assert [placement.stages for placement in plan.placements] == [(0, 1), (2, 3)]
    free = PassCosts(denoise_s=(0.0, 0.0, 0.0, 0.0), decode_s=0.0)
    assert [placement.stages for placement in place(HIAR, devices(3), free).placements] == [(0,), (1,), (2, 3)]


def test_block_first_keeps_the_denoise_stages_together() -> None:
    together = ("denoise[0]", "denoise[1]", "denoise[2]", "denoise[3]")
    assert names(place(BLOCK_FIRST, devices(1), EVEN)) == [[(*together, "decode")]]
    assert names(place(BLOCK_FIRST, devices(2), EVEN)) == [[together, ("decode",)]]
    assert names(place(BLOCK_FIRST, devices(3), EVEN)) == [[(*together, "decode")], [together, ("decode",)]]


def test_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="no device"):
        place(HIAR, (), EVEN)


def test_a_plan_says_its_rate() -> None:
    line = place(HIAR, devices(2), EVEN).describe(frames_per_block=12)
    assert line.startswith(
        "1 chain(s), 24.0 frames/s predicted; cuda:0: text denoise[0] denoise[1] (0.400 s); cuda:1: "
    )
    two_chains = place(HIAR, devices(10), EVEN).describe(frames_per_block=12)
    assert two_chains.startswith("2 chain(s), 120.0 frames/s predicted; ")


STEPS_S = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(steps_s=STEPS_S, decode_s=st.floats(0.0, 4.0), data=st.data())
def test_the_slowest_part_is_the_quickest_of_all_cuts(
    steps_s: list[float], decode_s: float, data: st.DataObject
) -> None:
    num_stages = len(steps_s)
    costs = PassCosts(denoise_s=tuple(sum(steps_s[: k + 1]) for k in range(num_stages)), decode_s=decode_s)
    num_parts = data.draw(st.integers(1, num_stages + 1))
    plan = place(rollout_of(num_stages), devices(num_parts), costs)
    (chain,) = plan.chains
    assert_runs_every_stage_once(chain, num_stages)
    slowest_s = [
        max(load_s(costs, num_stages, begin, end) for begin, end in zip((0, *ends), ends, strict=False))
        for ends in all_cuts(num_stages, num_parts)
    ]
    assert plan.block_s(0) == min(slowest_s)
    begin = 0
    for placement in chain:
        end = begin + len(placement.stages) + placement.decodes
        assert placement.load_s == load_s(costs, num_stages, begin, end)
        begin = end


UNITS_S = (0.05, 0.045, 0.059, 0.059, 0.046, 0.117, 0.117, 0.117, 0.039, 0.117, 0.117, 0.117)


def cut_costs(decode_s: float) -> PassCosts:
    return replace(EVEN, decode_s=decode_s, units_s=tuple(decode_s * share for share in UNITS_S))


def test_a_decoder_that_is_the_slowest_is_cut_over_the_devices_that_are_left() -> None:
    plan = place(rollout_of(4), devices(7), cut_costs(0.55))
    (chain,) = plan.chains
    assert [placement.names[-1] for placement in chain if placement.decodes] == ["decode[0]", "decode[1]", "decode[2]"]
    parts = [placement.part for placement in chain if placement.part is not None]
    assert [(part.begin, part.end) for part in parts] == [(0, 6), (6, 9), (9, 12)]
    assert parts[0].is_first and parts[-1].is_last and [one.encodes for one in chain] == [False] * 6 + [True]
    assert plan.block_s(0) == pytest.approx(0.55 * 0.376)


def test_a_worker_shares_a_denoise_stage_and_the_first_part_of_the_decoder() -> None:
    plan = place(rollout_of(4), devices(2), cut_costs(0.5))
    first, second = plan.placements
    assert first.stages == (0, 1, 2) and not first.decodes and second.stages == (3,) and second.part is None
    first, second = place(rollout_of(4), devices(2), cut_costs(1.2)).placements
    assert first.stages == (0, 1, 2, 3) and first.part is not None and first.part.end == second.part.begin  # type: ignore[union-attr]


def test_further_chains_are_made_of_devices_that_one_viewer_would_not_feel() -> None:
    for count, chains in ((8, 1), (9, 1), (14, 2), (16, 2), (21, 3)):
        plan = place(rollout_of(4), devices(count), cut_costs(0.55))
        assert len(plan.chains) == chains and len(plan.placements) == count
        assert max(plan.block_s(chain) for chain in range(chains)) <= 0.21 * WORTH
