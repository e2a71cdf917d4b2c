"""What keeps a group alive: its states, its pauses, when it gives up, and whom it tells."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import StartError
from engine.fleet.supervisor import LOSS_SPAN_S, NODE_PAUSE_S, PAUSES_S, Supervisor
from engine.messages import (
    Assign,
    BlockDone,
    Cancel,
    EncodePrompt,
    ForFront,
    MeasureCosts,
    StartFailed,
    WorkBegins,
)
from engine.observe import LossReason, Observer, StartTimes
from engine.request import EngineFacts, EngineState
from tests.fleet.fake_workers import OPENED, Clock, FakeHosts, FakeWorker, config, run, settle

DONE = BlockDone(video="v", block=0, num_frames=9, data=b"", latents=None, decode_s=0.0, encode_s=0.0)


class Site(Observer):
    """A supervisor over devices that are not there; remembers what it was told, in order."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        self._clock = clock
        self.events: list[tuple[Any, ...]] = []
        self.messages: list[tuple[int, ForFront]] = []
        self.hosts = FakeHosts()
        self.supervisor = Supervisor(
            config(**settings),
            self,
            on_message=lambda rank, message: self.messages.append((rank, message)),
            on_ready=lambda facts: self.events.append(("ready",)),
            on_lost=lambda sentence, videos: self.events.append(("lost", sentence, videos)),
        )
        self.supervisor._hosts = self.hosts

    def group_serves(self, facts: EngineFacts, times: StartTimes) -> None:
        self.events.append(("serves",))

    def group_lost(self, rank: int, reason: LossReason) -> None:
        self.events.append(("group lost", rank, reason))

    def group_replaced(self, took_s: float) -> None:
        self.events.append(("replaced", took_s))

    @property
    def num_groups(self) -> int:
        return len(self.hosts.opened) // self.hosts.num_devices

    async def serve(self) -> None:
        """Start, and wait until it serves."""
        await self.supervisor.start()
        await self.supervisor.wait_ready()
        self.events.clear()

    async def lose_one(self) -> None:
        """A worker of the present group dies, and that is known."""
        self.hosts.present[1].die("worker 1 is gone")
        await settle()

    async def seconds_until_next_group(self) -> float:
        began_s, groups = self._clock.now_s, self.num_groups
        while self.num_groups == groups:
            await asyncio.sleep(0.05)
            assert self._clock.now_s < began_s + 60.0, "no group comes"
        return self._clock.now_s - began_s


def supervised(monkeypatch: pytest.MonkeyPatch, body: Callable[[Site], Any], **settings: Any) -> None:
    async def whole(clock: Clock) -> None:
        site = Site(clock, **settings)
        try:
            await body(site)
        finally:
            await site.supervisor.stop()

    run(monkeypatch, whole)


# --- the first start ---


def test_a_group_that_starts_serves_and_everybody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.supervisor.start()
        assert site.supervisor.view().state == EngineState.STARTING
        await site.supervisor.wait_ready()
        assert site.supervisor.view().state == EngineState.READY and site.supervisor.view().failure is None
        assert site.events == [("serves",), ("ready",)]
        assert len(site.supervisor.view().worker_loads) == 2 and site.supervisor.view().start_progress is None

    supervised(monkeypatch, body)


def test_a_first_start_that_fails_is_for_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        site.hosts.answers[Assign] = StartFailed(code="start_failed", message="cpu is no device")
        await site.supervisor.start()
        with pytest.raises(StartError, match=r"^cpu is no device$"):
            await site.supervisor.wait_ready()
        await asyncio.sleep(60.0)
        assert site.supervisor.view().state == EngineState.FAILED and site.num_groups == 1
        assert site.events == [("lost", "cpu is no device", frozenset())], "videos that wait for it end"
        assert not any(worker.alive for worker in site.hosts.opened)

    supervised(monkeypatch, body)


def test_a_worker_that_dies_in_the_first_start_is_for_the_operator_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        site.hosts.answers[MeasureCosts] = None
        await site.supervisor.start()
        await settle()
        await site.lose_one()
        with pytest.raises(StartError, match=r"^worker 1 is gone while it started$"):
            await site.supervisor.wait_ready()
        assert site.num_groups == 1

    supervised(monkeypatch, body)


def test_another_node_that_goes_in_the_first_start_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again: it is no error of the operator's, and no loss of a group that served."""

    async def body(site: Site) -> None:
        site.hosts.num_nodes = 2
        site.hosts.answers[MeasureCosts] = None
        await site.supervisor.start()
        await settle()
        for _ in range(len(PAUSES_S) + 1):
            lost = site.hosts.present
            await site.lose_one()
            assert await site.seconds_until_next_group() == pytest.approx(NODE_PAUSE_S, abs=0.1)
            assert all(worker.stopped for worker in lost)
        site.hosts.answers.clear()
        await site.lose_one()
        await site.supervisor.wait_ready()
        assert site.events == [("serves",), ("ready",)]

    supervised(monkeypatch, body)


def test_a_node_that_goes_again_and_again_ends_the_first_start_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        site.hosts.num_nodes = 2
        site.hosts.answers[MeasureCosts] = None
        await site.supervisor.start()
        await settle()
        while site.supervisor.view().state == EngineState.STARTING:
            await site.lose_one()
            await asyncio.sleep(3.0)
        with pytest.raises(StartError, match=r"^worker 1 is gone while it started$"):
            await site.supervisor.wait_ready()
        assert site.num_groups == 11  # one each 3 s, for 30 s

    supervised(monkeypatch, body, start_timeout_s=30.0)


def test_no_worker_lives_on_after_a_start_that_took_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        site.hosts.answers[Assign] = None
        await site.supervisor.start()
        with pytest.raises(StartError, match="not ready after 30 s"):
            await site.supervisor.wait_ready()
        assert not any(worker.alive for worker in site.hosts.opened)

    supervised(monkeypatch, body, start_timeout_s=30.0)


def test_a_start_that_fails_in_a_way_nobody_foresaw_does_not_look_like_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(site: Site) -> None:
        def refuse(*arguments: Any) -> FakeWorker:
            raise OSError("no process can be made")

        monkeypatch.setattr(site.hosts, "open_worker", refuse)
        await site.supervisor.start()
        with pytest.raises(StartError, match="no process can be made"):
            await site.supervisor.wait_ready()

    supervised(monkeypatch, body)


# --- a loss ---


def test_a_lost_group_is_replaced_at_once_and_measures_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        old = site.hosts.present
        old[1].tell(WorkBegins(videos=("v",)))
        site.hosts.sent.clear()
        old[1].die("worker 1 is gone")
        while site.supervisor.view().state == EngineState.READY:
            await asyncio.sleep(0)
        assert site.supervisor.view().state == EngineState.RESTARTING
        assert all(worker.stopped for worker in old) or site.num_groups == 1, "their memory must be free first"
        await site.supervisor.wait_ready()
        assert all(worker.stopped for worker in old)
        assert site.events == [
            ("group lost", 1, LossReason.DIED),
            ("lost", "worker 1 is gone", frozenset({"v"})),
            ("replaced", site.supervisor.view().recovery_times_s[0]),
            ("serves",),
            ("ready",),
        ]
        assert not any(kind == "MeasureCosts" for _, kind in site.hosts.kinds)
        assert len(site.supervisor.view().recovery_times_s) == 1

    supervised(monkeypatch, body)


def test_every_group_meets_in_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        await site.lose_one()
        await site.supervisor.wait_ready()
        meetings = [message.rendezvous for _, message in site.hosts.sent if isinstance(message, Assign)]
        assert [meeting.generation for meeting in meetings] == [0, 0, 1, 1]
        assert len({meeting.store for meeting in meetings}) == 2

    supervised(monkeypatch, body)


def test_a_loss_while_it_restarts_is_one_more_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        site.hosts.answers[Assign] = None
        await site.lose_one()
        assert site.num_groups == 2 and site.supervisor.view().state == EngineState.RESTARTING
        await site.lose_one()
        del site.hosts.answers[Assign]
        assert await site.seconds_until_next_group() == pytest.approx(PAUSES_S[1], abs=0.1)
        await site.supervisor.wait_ready()
        assert [event for event in site.events if event[0] == "lost"] == 2 * [("lost", "worker 1 is gone", frozenset())]
        assert site.supervisor.view().state == EngineState.READY

    supervised(monkeypatch, body)


def test_a_restart_that_cannot_start_fails_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        site.hosts.answers[Assign] = StartFailed(code="start_failed", message="the file is gone")
        await site.lose_one()
        with pytest.raises(StartError, match="the file is gone"):
            await site.supervisor.wait_ready()
        assert site.supervisor.view().state == EngineState.FAILED
        assert site.events[-1] == ("lost", "the file is gone", frozenset())

    supervised(monkeypatch, body)


def test_pauses_grow_and_one_loss_more_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        for pause_s in PAUSES_S:
            site.hosts.present[1].die("worker 1 is gone")
            assert await site.seconds_until_next_group() == pytest.approx(pause_s, abs=0.15)
            await site.supervisor.wait_ready()
        await site.lose_one()
        assert site.supervisor.view().state == EngineState.FAILED
        with pytest.raises(StartError, match=r"^worker 1 is gone; 6 losses in 600 s, giving up$"):
            await site.supervisor.wait_ready()
        groups = site.num_groups
        await asyncio.sleep(60.0)
        assert site.num_groups == groups and len(site.supervisor.view().recovery_times_s) == len(PAUSES_S)

    supervised(monkeypatch, body)


def test_losses_that_lie_far_apart_are_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        for _ in range(len(PAUSES_S) + 2):
            site.hosts.present[0].die()
            assert await site.seconds_until_next_group() == pytest.approx(PAUSES_S[0], abs=0.15)
            await site.supervisor.wait_ready()
            await asyncio.sleep(LOSS_SPAN_S)
        assert site.supervisor.view().state == EngineState.READY

    supervised(monkeypatch, body)


def test_a_worker_that_hangs_is_seen_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        site.supervisor.send_chain(0, Cancel(video="v"))
        await asyncio.sleep(60.0)
        assert site.events == [], "a cancel is no ticket"
        site.hosts.answers[EncodePrompt] = None
        site.supervisor.ask(EncodePrompt(request=1, text="x"))
        await asyncio.sleep(60.0)
        assert site.events[0][0] == "group lost" and site.events[0][2] == LossReason.HUNG

    supervised(monkeypatch, body, stage_timeout_s=20.0)


# --- an earlier generation ---


def test_what_workers_of_an_earlier_group_say_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        old = site.hosts.present
        old[0].tell(DONE)
        await site.lose_one()
        await site.supervisor.wait_ready()
        events = len(site.events)
        old[0].tell(DONE)
        old[0].lost("the worker was killed")
        old[1].tell(StartFailed(code="start_failed", message="late"))
        await settle()
        assert site.messages == [(0, DONE)], "only what it said while it served"
        assert len(site.events) == events and site.supervisor.view().state == EngineState.READY
        site.hosts.present[1].tell(DONE)
        assert site.messages[1:] == [(1, DONE)]

    supervised(monkeypatch, body)


def test_what_is_sent_while_no_group_serves_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        site.hosts.answers[Assign] = None
        await site.lose_one()
        site.hosts.sent.clear()
        site.supervisor.send_chain(0, Cancel(video="v"))
        site.supervisor.ask(EncodePrompt(request=1, text="x"))
        assert site.hosts.sent == []

    supervised(monkeypatch, body)


# --- a stop ---


@pytest.mark.parametrize("silent", [MeasureCosts, Assign, EncodePrompt])
def test_a_stop_while_it_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch, silent: type) -> None:
    async def body(site: Site) -> None:
        site.hosts.answers[silent] = None
        await site.supervisor.start()
        await settle()
        waiting = asyncio.create_task(site.supervisor.wait_ready())
        await site.supervisor.stop()
        await waiting
        assert all(worker.stopped for worker in site.hosts.opened) and site.hosts.stopped
        site.hosts.opened[0].tell(OPENED)
        site.hosts.opened[1].lost("the worker was killed")
        await asyncio.sleep(60.0)
        assert site.supervisor.view().state == EngineState.STOPPED
        assert site.events == [] and site.num_groups == 1

    supervised(monkeypatch, body)


def test_a_stop_in_the_pause_before_a_restart_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(site: Site) -> None:
        await site.serve()
        await site.lose_one()
        await site.supervisor.wait_ready()
        await site.lose_one()
        assert site.supervisor.view().state == EngineState.RESTARTING
        groups = site.num_groups
        await site.supervisor.stop()
        await asyncio.sleep(60.0)
        assert site.num_groups == groups and site.supervisor.view().state == EngineState.STOPPED

    supervised(monkeypatch, body)
