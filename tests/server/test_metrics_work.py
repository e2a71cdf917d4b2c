"""What workers say they did becomes stage and worker times, exactly."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import generate_latest

from engine import (
    CorruptLatents,
    EndReason,
    EngineUnavailable,
    Fragment,
    HiarError,
    LossReason,
    Pace,
    Phase,
    Rests,
    Span,
    StartPhase,
    StartProgress,
    StartTimes,
    WorkerMemoryFacts,
)
from server.metrics.families import Families
from server.metrics.recorder import Recorder
from tests import instant
from tests.server.scrape import Scrape, parse

TIMES = StartTimes(measure_s=1.0, load_s=2.0, warm_up_s=3.0, restart_s=4.0)
MEMORY = WorkerMemoryFacts(
    rank=0,
    device="cuda:0",
    planned=(("weights", 3 * 10**9), ("decoder state", 10**9)),
    measured=(("weights", 3 * 10**9),),
    planned_bytes=5 * 10**9,
    measured_bytes=4 * 10**9,
)


class Book:
    """A recorder of an engine with some workers, and what it has written."""

    def __init__(self, num_workers: int) -> None:
        self.families = Families(4)
        self.recorder = Recorder(self.families)
        self.serve(num_workers)

    def serve(self, num_workers: int) -> None:
        for phase in StartPhase:
            self.recorder.worker_starts(0, StartProgress(phase=phase, what="hiar.pt", done=1, total=4))
        facts = replace(instant.facts(("cpu",) * num_workers), memory=(MEMORY,))
        self.recorder.group_serves(facts, TIMES)

    def work(self, rank: int, *spans: Span, **rests: float) -> None:
        self.recorder.worker_worked(rank, spans, Rests(**rests))

    @property
    def now(self) -> Scrape:
        return parse(generate_latest(self.families.registry).decode())


def span(phase: Phase, stage: int | None, block: int, began_s: float, ended_s: float, **more: Any) -> Span:
    return Span(phase=phase, rank=0, stage=stage, video="s", block=block, began_s=began_s, ended_s=ended_s, **more)


def test_memory_is_shown_as_planned_and_as_measured_and_a_start_phase_by_phase() -> None:
    book = Book(5)
    now = book.now
    for item, source, size in [
        ("weights", "planned", 3e9),
        ("decoder_state", "planned", 1e9),
        ("total", "planned", 5e9),
        ("weights", "measured", 3e9),
        ("total", "measured", 4e9),
    ]:
        assert now.value("hiar_worker_memory_bytes", rank="0", item=item, source=source) == size
    for phase in ("reading", "measuring", "capturing", "warming"):
        assert now.value("hiar_worker_start_progress_ratio", rank="0", phase=phase) == 0.25
    book.recorder.group_lost(0, LossReason.DIED)
    assert not any(name == "hiar_worker_start_progress_ratio" for name, _ in book.now.values)


def test_a_fused_forward_is_one_and_is_charged_once() -> None:
    book = Book(5)
    book.work(1, span(Phase.CACHE, 1, 4, 10.0, 10.4), span(Phase.DENOISE, 1, 5, 10.0, 10.4))
    book.work(1, span(Phase.DENOISE, 1, 6, 11.0, 11.3), span(Phase.CACHE, 1, 6, 12.0, 12.1))
    now = book.now
    for kind, took_s in (("fused", 0.4), ("denoise", 0.3), ("cache", 0.1)):
        labels = {"stage": "denoise1", "pass": kind}
        assert now.value("hiar_stage_compute_duration_seconds_count", **labels) == 1
        assert now.value("hiar_stage_compute_duration_seconds_sum", **labels) == pytest.approx(took_s)
        assert now.value("hiar_stage_busy_seconds_total", rank="1", **labels) == pytest.approx(took_s)
    assert now.value("hiar_stage_last_block", stage="denoise1") == 6


def test_a_forward_of_several_stages_is_shared_by_its_passes() -> None:
    book = Book(1)
    both = (span(Phase.CACHE, 1, 4, 5.0, 5.6), span(Phase.DENOISE, 1, 5, 5.0, 5.6), span(Phase.DENOISE, 2, 4, 5.0, 5.6))
    book.work(0, *both)
    now = book.now
    shares = {"denoise1": ("fused", 0.4), "denoise2": ("denoise", 0.2)}
    for stage, (kind, share_s) in shares.items():
        labels = {"stage": stage, "pass": kind}
        assert now.value("hiar_stage_compute_duration_seconds_sum", **labels) == pytest.approx(0.6)
        assert now.value("hiar_stage_busy_seconds_total", rank="0", **labels) == pytest.approx(share_s)
    assert now.total("hiar_stage_busy_seconds_total") == pytest.approx(0.6)


def test_other_steps_rests_and_edges() -> None:
    book = Book(5)
    book.work(0, span(Phase.SEND, None, 0, 1.0, 1.25, num_bytes=1000), span(Phase.TEXT, None, -1, 2.0, 2.5), none_s=3.0)
    book.work(1, span(Phase.RECEIVE, None, 0, 1.0, 1.5, num_bytes=1000), input_s=0.5, output_s=0.25)
    book.work(4, span(Phase.DECODE, None, 0, 2.0, 2.75), span(Phase.ENCODE, None, 0, 2.0, 2.5))
    now = book.now
    assert now.value("hiar_stage_transfer_bytes_total", edge="0-1") == 1000
    assert now.value("hiar_stage_transfer_duration_seconds_sum", edge="0-1") == 0.25
    assert now.value("hiar_stage_receive_wait_duration_seconds_sum", edge="0-1") == 0.5
    assert now.value("hiar_text_encode_duration_seconds_sum") == 0.5
    assert now.value("hiar_vae_decode_duration_seconds_sum") == 0.75
    assert now.value("hiar_encode_duration_seconds_sum") == 0.5
    busy = {
        "decode": now.total("hiar_stage_busy_seconds_total", rank="4"),
        "text": now.total("hiar_stage_busy_seconds_total", rank="0"),
    }
    assert busy == {"decode": 0.75, "text": 0.5}
    assert [now.value("hiar_worker_idle_seconds_total", rank="1", cause=c) for c in ("input", "output", "none")] == [
        *(0.5, 0.25, 0)
    ]
    assert now.value("hiar_worker_idle_seconds_total", rank="0", cause="none") == 3


def test_a_group_with_fewer_workers_keeps_counters_and_drops_gauges() -> None:
    book = Book(5)
    book.work(4, span(Phase.DECODE, None, 0, 2.0, 2.5))
    book.recorder.group_lost(4, LossReason.DIED)
    book.serve(2)
    now = book.now
    assert now.total("hiar_stage_busy_seconds_total", rank="4") == 0.5
    assert now.value("hiar_worker_losses_total", rank="4", reason="died") == 1
    assert sum(1 for name, _ in now.values if name == "hiar_worker_info") == 2


def test_early_and_late_blocks_and_pictures_that_stand_still_are_counted() -> None:
    book = Book(1)
    fragment = Fragment(block=0, data=b"abc", num_frames=12, start_s=0.0, duration_s=0.75)
    for lead_s in (None, 2.5, -0.5):
        book.recorder.block_made(fragment, None, lead_s)
    book.recorder.stood_still(0.25)
    book.recorder.stood_still(0.25)
    for pace in (Pace.REALTIME, Pace.FAST, Pace.REALTIME):
        book.recorder.block_taken(pace)
    now = book.now
    assert (now.value("hiar_blocks_late_total"), now.value("hiar_stream_stalled_seconds_total")) == (1, 0.5)
    assert now.value("hiar_stream_lead_seconds_count") == 2
    assert now.value("hiar_stream_lead_seconds_bucket", le="0.0") == 1
    assert now.value("hiar_blocks_delivered_total", pace="realtime") == 2
    assert now.value("hiar_blocks_delivered_total", pace="fast") == 1
    assert now.value("hiar_blocks_generated_total") == 3


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        (EndReason.COMPLETED, "completed", None),
        (EndReason.CANCELLED, "client_cancel", None),
        (EndReason.SLOW_CLIENT, "slow_client", None),
        (CorruptLatents("NaN"), "engine_error", "corrupt_latents"),
        (EngineUnavailable("leaving", 5.0, "draining"), "drain", None),
    ],
)
def test_every_end_of_a_video_is_counted_once(outcome: EndReason | HiarError, reason: str, code: str | None) -> None:
    book = Book(1)
    book.recorder.video_ended(outcome, 3.0, 7.0)
    now = book.now
    assert now.value("hiar_videos_finished_total", reason=reason) == now.total("hiar_videos_finished_total") == 1
    assert (now.value("hiar_video_length_seconds_sum"), now.value("hiar_video_lifetime_seconds_sum")) == (3.0, 7.0)
    assert now.total("hiar_errors_total") == (code is not None)
    if code is not None:
        assert now.value("hiar_errors_total", component="video", kind=code) == 1
