"""The schedule's measurement: its arithmetic exactly, and what a real video's spans must show at any speed."""

import asyncio
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest

from benchmarks import pipeline
from benchmarks.pipeline import Run, Setup, ideal_passes, manifest_of, measure, random_setup, report
from engine.config import Order
from engine.engine_config import Rehearsal
from engine.law.placement import PassCosts, place
from engine.trace import Phase, Span

pytestmark = pytest.mark.in_turn

PASS_S = 0.02
IDLE = -1


def setup_of(num_stages: int, num_blocks: int, pass_s: float = PASS_S) -> Setup:
    manifest = manifest_of(num_stages, pipeline.SMALL, (96, 96), Path("nowhere"))
    devices = ("cpu",) * (num_stages + 1)
    return Setup(manifest=manifest, devices=devices, num_blocks=num_blocks, rehearsal=Rehearsal(pass_s=pass_s))


def run_of(num_stages: int, num_blocks: int, num_workers: int, spans: tuple[Span, ...]) -> Run:
    setup = setup_of(num_stages, num_blocks)
    costs = PassCosts(denoise_s=tuple(2 * PASS_S * (k + 1) for k in range(num_stages)), decode_s=0.0)
    plan = place(setup.manifest.rollout, setup.devices[:num_workers], costs)
    return Run(setup=setup, order=Order.STEP_FIRST, plan=plan, spans=spans)


def span(phase: Phase, stage: int, block: int, begin: float, end: float, rank: int | None = None) -> Span:
    return Span(
        phase=phase,
        rank=stage if rank is None else rank,
        stage=stage,
        video="one",
        block=block,
        began_s=1000 + begin * PASS_S,
        ended_s=1000 + end * PASS_S,
    )


def diagonal(num_stages: int, num_blocks: int) -> tuple[Span, ...]:
    """The ideal schedule on as many workers as stages; the first stage fuses."""
    spans = []
    for stage, block in product(range(num_stages), range(num_blocks)):
        begin = stage + 2 * block
        fused_denoise, fused_cache = stage == 0 and block > 0, stage == 0 and block < num_blocks - 1
        spans.append(span(Phase.DENOISE, stage, block, begin - fused_denoise, begin + 1))
        if block < num_blocks - 1:
            spans.append(span(Phase.CACHE, stage, block, begin + 1, begin + 2 + fused_cache))
    return tuple(spans)


def fastest(cut: tuple[int, ...], num_blocks: int) -> int:
    """The least number of time steps, found by trying every choice of every worker at every step.

    A stage's passes are D(0), C(0), D(1) .. D(N - 1), in this order; a state is how many each stage has run.
    """
    owners = [worker for worker, count in enumerate(cut) for _ in range(count)]
    last, stages, workers = 2 * num_blocks - 1, range(len(owners)), range(len(cut))

    def may_run(state: tuple[int, ...], stage: int) -> bool:
        arrived = stage == 0 or state[stage] % 2 == 1 or state[stage - 1] > state[stage]
        return state[stage] < last and arrived

    def following(state: tuple[int, ...]) -> set[tuple[int, ...]]:
        choices = [[s for s in stages if owners[s] == worker and may_run(state, s)] or [IDLE] for worker in workers]
        return {tuple(state[s] + (s in chosen) for s in stages) for chosen in product(*choices)}

    states, steps = {(0,) * len(owners)}, 0
    while (last,) * len(owners) not in states:
        states, steps = set().union(*(following(state) for state in states)), steps + 1
    return steps


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "cut", [(1,), (2,), (1, 1), (3,), (1, 2), (2, 1), (1, 1, 1), (4,), (2, 2), (1, 1, 2), (1, 2, 1), (3, 1), (1,) * 4]
)
def test_the_ideal_is_what_trying_every_schedule_finds(cut: tuple[int, ...], num_blocks: int) -> None:
    assert ideal_passes(Order.STEP_FIRST, num_blocks, sum(cut), max(cut)) == fastest(cut, num_blocks)


def test_the_ideals_of_the_paper() -> None:
    assert ideal_passes(Order.BLOCK_FIRST, 27, 4, 4) == 5 * 27 - 1
    assert ideal_passes(Order.STEP_FIRST, 27, 4, 4) == 8 * 27 - 4
    assert ideal_passes(Order.STEP_FIRST, 27, 4, 1) == 2 * 27 + 4 - 2
    assert ideal_passes(Order.STEP_FIRST, 7, 4, 1) == 16


def test_an_ideal_run_is_found_ideal() -> None:
    run = run_of(3, 5, 3, diagonal(3, 5))
    assert run.stages_of_workers == (1, 1, 1)
    assert len(run.passes) == 3 * (2 * 5 - 1)
    assert run.makespan_s == pytest.approx(11 * PASS_S)
    assert run.busy_s == pytest.approx(27 * PASS_S)
    assert run.mean_pass_s == pytest.approx(PASS_S)
    assert run.efficiency == pytest.approx(1)
    assert run.bubble == pytest.approx(1 - 27 / 33)


def test_a_worker_without_denoise_stages_makes_no_bubble() -> None:
    beside = run_of(3, 5, 4, diagonal(3, 5))
    assert beside.stages_of_workers == (1, 1, 1)
    assert beside.bubble == pytest.approx(1 - 27 / 33)


def test_time_lost_is_found() -> None:
    late = (span(Phase.DENOISE, 0, 0, 0, 1), span(Phase.CACHE, 0, 0, 1, 2), span(Phase.DENOISE, 0, 1, 3, 4))
    run = run_of(1, 2, 1, late)
    assert run.efficiency == pytest.approx(3 / 4)
    assert run.bubble == pytest.approx(1 / 4)


def test_the_report_has_a_row_a_run() -> None:
    run = run_of(3, 5, 3, diagonal(3, 5))
    text = report(run, [run], ["--blocks", "5"])
    rows = [line for line in text.splitlines() if line.startswith("| step-first")]
    assert rows == ["| step-first | 3 | 27 | 20.00 ms | 0.220 s | 0.220 s | 100.0% | 18.2% | 1.00x |"] * 2
    assert "benchmarks.pipeline --blocks 5" in text and "passes sleep 20 ms" in text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--workers 1,6", r"--workers \[1, 6\] leaves 1..5"),
        ("--workers 1,2 --trace trace.json", "which are not among"),
        ("--size big", "--size big is not like 832x480"),
        ("--blocks 0", "must be at least 1"),
        ("--devices gpu --workers 1", "neither 'cpu' nor 'cuda:N'"),
        ("--pass-ms 0", "not positive"),
    ],
)
def test_options_without_meaning_are_refused(monkeypatch: pytest.MonkeyPatch, options: str, complaint: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", *options.split()])
    monkeypatch.setattr(pipeline, "WAN_1_3B", pipeline.SMALL)
    monkeypatch.setattr(pipeline, "WAN_SIZE", pipeline.SMALL_SIZE)
    with pytest.raises(SystemExit, match=complaint):
        pipeline.main()


@pytest.mark.slow
def test_a_real_video_runs_every_pass_once_and_in_order() -> None:
    num_stages, num_blocks = 2, 6
    run = asyncio.run(measure(setup_of(num_stages, num_blocks), Order.STEP_FIRST, num_workers=2))
    assert run.stages_of_workers == (1, 1)
    denoise = {(s.stage, s.block): s for s in run.passes if s.phase == Phase.DENOISE}
    cache = {(s.stage, s.block): s for s in run.passes if s.phase == Phase.CACHE}
    assert set(denoise) == set(product(range(num_stages), range(num_blocks)))
    assert set(cache) == set(product(range(num_stages), range(num_blocks - 1)))
    assert len(run.passes) == len(denoise) + len(cache)
    for block in range(num_blocks):
        assert denoise[1, block].began_s >= denoise[0, block].ended_s
    for stage, (block, following) in product(range(num_stages), pairwise(range(num_blocks))):
        first, second, third = denoise[stage, block], cache[stage, block], denoise[stage, following]
        assert second.began_s >= first.ended_s
        fused = (second.began_s, second.ended_s) == (third.began_s, third.ended_s)
        assert fused or third.began_s >= second.ended_s
    assert run.mean_pass_s >= PASS_S
    assert 0 < run.efficiency <= 1


@pytest.mark.slow
def test_random_weights_are_a_model_the_engine_runs(tmp_path: Path) -> None:
    manifest = manifest_of(2, pipeline.SMALL, (96, 96), tmp_path)
    setup = random_setup(tmp_path, manifest, ("cpu",) * 3, num_blocks=3)
    run = asyncio.run(measure(setup, Order.BLOCK_FIRST, num_workers=1))
    assert len(run.passes) == ideal_passes(Order.BLOCK_FIRST, 3, 2, 2) == 8
    assert run.ideal_s == pytest.approx(run.busy_s)
