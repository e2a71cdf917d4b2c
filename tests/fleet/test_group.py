"""One worker group: the order of its start, what ends it, who is told, and what reaches whom."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.errors import HiarError, StartError, StartOutOfMemory, WorkerLost
from engine.fleet import start as start_module
from engine.fleet.start import GroupStart, Started
from engine.messages import (
    Assign,
    BlockDone,
    Cancel,
    CloseTicket,
    DeviceOpened,
    EncodePrompt,
    FromWorker,
    MeasureCosts,
    PromptTicket,
    StartFailed,
    WorkBegins,
)
from engine.observe import LossReason
from tests.fleet.fake_workers import EMBEDDING, OPENED, Clock, FakeHosts, beat, config, run, settle

TICKET = PromptTicket(video="v", embedding=EMBEDDING)


class Site:
    """A group on devices that are not there; remembers what it was told."""

    def __init__(self, num_devices: int = 2, **settings: Any) -> None:
        self.hosts = FakeHosts(num_devices)
        self.messages: list[tuple[int, FromWorker]] = []
        self.losses: list[tuple[str, frozenset[str]]] = []
        self.start = GroupStart(
            config(num_devices, **settings), self.hosts, Path(), 0, None, lambda rank, progress: None
        )
        self.group = self.start.group

    async def bring_up(self) -> Started:
        """Start the group, and let it serve."""
        started = await self.start.bring_up()
        self.group.serve(
            lambda rank, message: self.messages.append((rank, message)),
            lambda error, videos: self.losses.append((error.message, videos)),
        )
        return started

    async def failure_of_start(self) -> HiarError:
        with pytest.raises(HiarError) as failure:
            await self.bring_up()
        assert not any(worker.alive for worker in self.hosts.opened)
        return failure.value


# --- the start ---


def test_a_start_asks_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        started = await site.bring_up()
        warm_up = ["OpenTicket", "BlockTicket", "BlockTicket", "CloseTicket"]
        assert site.hosts.kinds[:3] == [(0, "MeasureCosts"), (0, "Assign"), (1, "Assign")]
        assert site.hosts.kinds[3][1] == "EncodePrompt"
        for rank in (0, 1):
            assert [kind for at, kind in site.hosts.kinds[4:] if at == rank] == warm_up
        assert len(site.group.loads) == 2 and started.facts.plan == site.group.plan

    run(monkeypatch, body)


@pytest.mark.parametrize("slowest", [0, 1])
def test_nothing_is_asked_before_every_device_is_open(monkeypatch: pytest.MonkeyPatch, slowest: int) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        site.hosts.opens = False
        starting = asyncio.create_task(site.bring_up())
        await settle()
        site.hosts.opened[1 - slowest].tell(OPENED)
        await settle()
        assert site.hosts.sent == []
        site.hosts.opened[slowest].tell(OPENED)
        await starting

    run(monkeypatch, body)


def test_no_worker_warms_up_before_all_have_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        site.hosts.answers[Assign] = None
        starting = asyncio.create_task(site.bring_up())
        await settle()
        assert [kind for _, kind in site.hosts.kinds] == ["MeasureCosts", "Assign", "Assign"]
        starting.cancel()

    run(monkeypatch, body)


@pytest.mark.parametrize("kind", [MeasureCosts, Assign])
def test_a_worker_that_cannot_start_ends_all_with_its_own_error(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        site.hosts.answers[kind] = StartFailed(code=StartOutOfMemory.code, message="cpu has no room")
        failure = await site.failure_of_start()
        assert type(failure) is StartOutOfMemory and failure.message == "cpu has no room"

    run(monkeypatch, body)


@pytest.mark.parametrize("kind", [DeviceOpened, MeasureCosts, Assign, EncodePrompt, CloseTicket])
def test_a_worker_that_dies_while_it_starts_ends_all_at_once(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """Before it opens its device, or without an answer to a question."""

    async def body(clock: Clock) -> None:
        site = Site()
        site.hosts.answers[kind] = None
        site.hosts.opens = kind is not DeviceOpened
        began_s = clock.now_s
        asyncio.get_running_loop().call_later(1.0, lambda: site.hosts.opened[1].die("worker 1 is gone"))
        failure = await site.failure_of_start()
        assert type(failure) is WorkerLost and failure.message == "worker 1 is gone"
        assert clock.now_s - began_s == pytest.approx(1.0, abs=0.01)

    run(monkeypatch, body)


def test_a_start_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site(start_timeout_s=30.0)
        site.hosts.answers[Assign] = None
        with pytest.raises(StartError, match="not ready after 30 s"):
            await site.bring_up()

    run(monkeypatch, body)


def test_what_workers_say_after_a_stop_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        site.hosts.opens = False
        starting = asyncio.create_task(site.bring_up())
        await settle()
        await site.group.stop()
        for worker in site.hosts.opened:
            assert worker.stopped
            worker.tell(OPENED)
        await settle()
        assert site.hosts.sent == [] and not starting.done()
        starting.cancel()

    run(monkeypatch, body)


# --- what reaches whom ---


def test_a_ticket_goes_to_all_workers_of_its_chain_and_a_question_to_who_embeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(clock: Clock) -> None:
        site = Site(6)
        await site.bring_up()
        assert site.group.plan is not None
        first, second = ([placement.rank for placement in chain] for chain in site.group.plan.chains)
        site.hosts.sent.clear()
        site.group.send_chain(1, TICKET)
        site.group.send_chain(0, Cancel(video="w"))
        site.group.ask(EncodePrompt(request=3, text="x"))
        assert [rank for rank, message in site.hosts.sent if message == TICKET] == second
        assert [rank for rank, message in site.hosts.sent if isinstance(message, Cancel)] == first
        ((embeds, _),) = [sent for sent in site.hosts.sent if isinstance(sent[1], EncodePrompt)]
        assert site.group.plan.placements[embeds].embeds_text

    run(monkeypatch, body)


def test_messages_come_with_their_rank_once_the_group_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        await site.bring_up()
        await settle()
        site.messages.clear()
        done = BlockDone(video="v", block=0, num_frames=9, data=b"", latents=None, decode_s=0.0, encode_s=0.0)
        site.hosts.opened[1].tell(done)
        assert site.messages == [(1, done)]

    run(monkeypatch, body)


def test_pages_are_what_workers_last_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        await site.bring_up()
        site.hosts.opened[0].tell(beat(5, pages_used=3))
        site.hosts.opened[1].tell(beat(5, pages_used=4))
        site.hosts.opened[0].tell(beat(6, pages_used=1))
        assert site.group.pages_used == 5
        assert [load.pages_used for load in site.group.loads] == [1, 4]

    run(monkeypatch, body)


# --- a loss ---


def test_a_worker_that_dies_ends_the_group_and_its_work_is_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        await site.bring_up()
        first, second = site.hosts.opened
        first.tell(WorkBegins(videos=("other",)))
        second.tell(WorkBegins(videos=("v", "w")))
        second.die("worker 1 is gone")
        await settle()
        assert site.losses == [("worker 1 is gone", frozenset({"v", "w"}))], "once, though the others end too"
        assert not first.alive and site.group.loads == ()
        assert site.group.loss == (1, LossReason.DIED)
        site.messages.clear()
        first.tell(beat(9))
        assert site.messages == [], "the last words of a dead group"

    run(monkeypatch, body)


def test_work_that_is_over_is_not_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site()
        await site.bring_up()
        site.hosts.opened[1].tell(WorkBegins(videos=("v",)))
        site.hosts.opened[1].tell(beat(5))
        site.hosts.opened[1].die()
        await settle()
        assert site.losses == [("the worker died", frozenset())]

    run(monkeypatch, body)


async def watch(site: Site, seconds: float, every_s: float = 0.25) -> None:
    for _ in range(round(seconds / every_s)):
        await asyncio.sleep(every_s)
        await site.group.check_progress()


async def bring_up_silent(site: Site) -> None:
    """A group whose workers will say nothing about the ticket."""
    await site.bring_up()
    await settle()
    site.hosts.answers[PromptTicket] = None
    site.messages.clear()


def test_a_worker_that_owes_work_and_is_silent_is_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site(stage_timeout_s=20.0)
        await bring_up_silent(site)
        site.group.send_chain(0, TICKET)
        first, second = site.hosts.opened
        first.tell(WorkBegins(videos=("v",)))
        await watch(site, 19.5)
        assert site.losses == [] and not first.aborted
        await watch(site, 1.0)
        ((sentence, suspects),) = site.losses
        assert sentence.startswith("worker 0 on cpu (") and sentence.endswith("made no progress in time")
        assert suspects == {"v"} and site.group.loss == (0, LossReason.HUNG)
        assert first.aborted and not second.aborted, "it is asked for its stack"
        assert not first.alive and not second.alive

    run(monkeypatch, body)


def test_nobody_is_hung_who_owes_nothing_or_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site(stage_timeout_s=20.0)
        await bring_up_silent(site)
        await watch(site, 100.0)
        site.group.send_chain(0, TICKET)
        for passed in (4, 4, 5):
            await watch(site, 15.0)
            site.hosts.opened[0].tell(beat(passed))
        await watch(site, 15.0)
        assert site.losses == []
        await watch(site, 10.0)
        assert site.group.loss == (1, LossReason.HUNG), "the one behind owes it since the one before has passed it"

    run(monkeypatch, body)


def test_a_front_that_slept_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = Site(stage_timeout_s=20.0)
        await bring_up_silent(site)
        await site.group.check_progress()
        site.group.send_chain(0, TICKET)
        clock.now_s += 3600.0
        await site.group.check_progress()
        await watch(site, 19.0)
        assert site.losses == []
        await watch(site, 2.0)
        assert len(site.losses) == 1

    run(monkeypatch, body)


def test_the_warm_up_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "MIN_BLOCKS_OF_PATIENCE", 0)

    async def body(clock: Clock) -> None:
        site = Site(stage_timeout_s=20.0)
        site.hosts.answers[CloseTicket] = None
        starting = asyncio.create_task(site.bring_up())
        await settle()
        await watch(site, 21.0)
        with pytest.raises(WorkerLost, match="made no progress in time"):
            await starting

    run(monkeypatch, body)
