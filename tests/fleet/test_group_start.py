"""The start of a group by what its workers say: it plans by their memory, and what one learned the next need not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engine.engine_config import EngineConfig
from engine.errors import StartError, StartOutOfMemory
from engine.fleet.start import GroupStart, Started
from engine.fleet.summary import Learned
from engine.law.placement import PassCosts
from engine.messages import (
    Assign,
    CostsMeasured,
    DeviceOpened,
    MeasureCosts,
    MemoryUse,
    StartFailed,
    StartPhase,
    StartProgress,
    WorkerFacts,
    WorkerReady,
)
from tests.law.published import WAN, wan

GB = 10**9
COSTS = PassCosts(denoise_s=(0.2, 0.4, 0.6, 0.8), decode_s=0.1)
FACTS = WorkerFacts(
    device_name="NVIDIA H100",
    num_pages=56,
    page_bytes=1,
    attention="triton-tma",
    attentions=("triton-tma", "cudnn-gathered"),
    dtype="bfloat16",
    encoder=None,
    codecs=None,
    takes_pictures=True,
    memory=MemoryUse(items=(("weights", 3 * GB),), total_bytes=60 * GB),
)
LATENTS_ONLY = replace(WAN, decoder=None)
"""Such a group makes no video before it serves, so a worker need not answer tickets."""


@dataclass
class Worker:
    """What stands at the other end: it says what it is told to."""

    tell: Callable[[Any], None]
    hosts: "Hosts"
    pid = None

    def send(self, message: Any) -> None:
        self.hosts.sent.append(message)
        for answer in self.hosts.answer(message):
            asyncio.get_running_loop().call_soon(self.tell, answer)

    def kill(self) -> None:
        self.hosts.num_killed += 1


@dataclass
class Hosts:
    """Devices that open with some free memory, and workers with answers."""

    free_gb: tuple[float, ...]
    answers: dict[type, Any]
    sent: list[Any] = field(default_factory=list)
    num_killed: int = 0

    async def wait_nodes(self) -> tuple[tuple[int, str], ...]:
        return tuple((0, f"cuda:{index}") for index in range(len(self.free_gb)))

    def open_worker(
        self, node_rank: int, device: str, tell: Callable[[Any], None], lost: Callable[[str], None]
    ) -> Worker:
        worker, free_gb = Worker(tell, self), self.free_gb[int(device.removeprefix("cuda:"))]
        opened = DeviceOpened(kind="NVIDIA H100", free_bytes=int(free_gb * GB), host_free_bytes=64 * GB, fp8=True)
        asyncio.get_running_loop().call_soon(tell, opened)
        return worker

    def answer(self, message: Any) -> list[Any]:
        return [self.answers[type(message)]] if type(message) in self.answers else []


def start(hosts: Hosts, config: EngineConfig, learned: Learned | None = None) -> Started:
    """What a start ends with. Raises what it failed with."""
    return asyncio.run(GroupStart(config, hosts, Path(), 0, learned, lambda rank, progress: None).bring_up())  # type: ignore[arg-type]


MEASURED = {MeasureCosts: CostsMeasured(costs=COSTS, load_s=1.0)}
READY = {Assign: WorkerReady(facts=FACTS)}


def test_what_does_not_fit_is_refused_before_anything_is_loaded() -> None:
    hosts = Hosts((25.0,), MEASURED | READY)
    with pytest.raises(StartError) as caught:
        start(hosts, wan())
    message = caught.value.message
    assert "cuda:0 has 25.0 GB free" in message and "these flags make it fit: --sizes 480x480" in message
    assert "pages 48.3" in message and hosts.sent == []


def test_memory_that_runs_out_all_the_same_is_told_with_the_plan() -> None:
    failed = StartFailed(code=StartOutOfMemory.code, message="cuda:0 has no room for the decoder of hiar")
    with pytest.raises(StartOutOfMemory) as caught:
        start(Hosts((85.0,), {MeasureCosts: failed}), wan())
    message = caught.value.message
    assert message.startswith("cuda:0 has no room for the decoder of hiar (planned for cuda:0 81.")
    assert "pages 48.3" in message and "text encoder 11.4" in message


def test_a_failure_of_an_unknown_kind_is_a_start_error() -> None:
    failed = StartFailed(code="from_another_version", message="cuda:0 is on fire")
    with pytest.raises(StartError, match=r"^cuda:0 is on fire$"):
        start(Hosts((85.0,), {MeasureCosts: failed}), wan())


def test_stages_and_text_go_where_there_is_room() -> None:
    hosts = Hosts((85.0, 24.0, 85.0), MEASURED | READY)
    facts = start(hosts, wan(3, manifest=LATENTS_ONLY)).facts
    assert [placement.stages for placement in facts.plan.placements] == [(0, 1), (2,), (3,)]
    assert [placement.embeds_text for placement in facts.plan.placements] == [False, False, True]
    (first, *_) = facts.memory
    assert dict(first.measured) == {"weights": 3 * GB} and first.measured_bytes == 60 * GB
    assert dict(first.planned)["pages"] == 2 * 2 * 7 * 862_617_600


def test_the_next_group_neither_measures_nor_tries_what_failed() -> None:
    hosts = Hosts((85.0, 85.0), MEASURED | READY)
    first = start(hosts, wan(2, manifest=LATENTS_ONLY))
    assert sum(isinstance(message, MeasureCosts) for message in hosts.sent) == 1
    assert all(message.attentions == () for message in hosts.sent if isinstance(message, Assign))
    assert first.learned.costs == COSTS
    hosts.sent.clear()
    second = start(hosts, wan(2, manifest=LATENTS_ONLY), first.learned)
    assert [type(message) for message in hosts.sent] == [Assign, Assign]
    assert all(message.attentions == FACTS.attentions for message in hosts.sent)
    assert second.learned == first.learned
    whole_s = second.times.measure_s + second.times.load_s + second.times.warm_up_s
    assert second.times.restart_s == pytest.approx(whole_s)


def test_a_restart_is_expected_to_take_all_but_the_measuring() -> None:
    hosts = Hosts((85.0,), {MeasureCosts: CostsMeasured(costs=COSTS, load_s=7.0)} | READY)
    times = start(hosts, wan(1, manifest=LATENTS_ONLY)).times
    # The worker says that loading took 7 s of its measuring; here it took no time.
    whole_s = times.measure_s + times.load_s + times.warm_up_s
    assert times.restart_s == pytest.approx(whole_s + 7.0, abs=1.0)


def test_progress_is_no_answer() -> None:
    progress = StartProgress(phase=StartPhase.READING, what="hiar.pt", done=1, total=2)
    with pytest.raises(StartError, match=r"were not ready after 0.2 s"):
        start(Hosts((85.0,), {MeasureCosts: progress}), wan(start_timeout_s=0.2))


def test_a_chain_below_realtime_is_told(caplog: pytest.LogCaptureFixture) -> None:
    slow = PassCosts(denoise_s=(0.2, 0.4, 0.6, 0.9), decode_s=0.1)
    start(Hosts((85.0,), {MeasureCosts: CostsMeasured(costs=slow, load_s=0.0)} | READY), wan(manifest=LATENTS_ONLY))
    assert "chain 0 makes 12.0 frames/s and hiar plays at 16: realtime videos stall" in caplog.text
    caplog.clear()
    fast = PassCosts(denoise_s=(0.1, 0.2, 0.3, 0.4), decode_s=0.1)
    start(Hosts((85.0,), {MeasureCosts: CostsMeasured(costs=fast, load_s=0.0)} | READY), wan(manifest=LATENTS_ONLY))
    assert "realtime videos stall" not in caplog.text
