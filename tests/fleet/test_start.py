"""The start of a group: its order, and what ends it in every phase."""

import asyncio

import pytest

from engine.errors import HiarError, StartError, StartOutOfMemory, WorkerLost
from engine.fleet import start as start_module
from engine.messages import (
    Assign,
    CloseTicket,
    DeviceOpened,
    EncodePrompt,
    MeasureCosts,
    PromptEncoded,
    PromptFailed,
    StartFailed,
)
from engine.observe import LossReason
from tests.fleet.fake_workers import EMBEDDING, OPENED, READY, Clock, GroupSite, run, settle


async def failure_of_start(site: GroupSite) -> HiarError:
    with pytest.raises(HiarError) as failure:
        await site.bring_up()
    assert not any(worker.alive for worker in site.hosts.opened)
    return failure.value


def test_a_start_asks_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
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
        site = GroupSite()
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
        site = GroupSite()
        site.hosts.answers[Assign] = None
        starting = asyncio.create_task(site.bring_up())
        await settle()
        assert [kind for _, kind in site.hosts.kinds] == ["MeasureCosts", "Assign", "Assign"]
        starting.cancel()

    run(monkeypatch, body)


@pytest.mark.parametrize("kind", [MeasureCosts, Assign])
def test_a_worker_that_cannot_start_ends_all_with_its_own_error(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
        site.hosts.answers[kind] = StartFailed(code=StartOutOfMemory.code, message="cpu has no room")
        failure = await failure_of_start(site)
        assert type(failure) is StartOutOfMemory and failure.message == "cpu has no room"

    run(monkeypatch, body)


def test_a_first_prompt_that_cannot_be_embedded_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
        site.hosts.answers[EncodePrompt] = PromptFailed(request=-1, code="engine_error", message="a bug")
        failure = await failure_of_start(site)
        assert type(failure) is StartError and failure.message == "a bug"

    run(monkeypatch, body)


@pytest.mark.parametrize("kind", [DeviceOpened, MeasureCosts, Assign, EncodePrompt, CloseTicket])
def test_a_worker_that_dies_while_it_starts_ends_all_at_once(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """Before it opens its device, or without an answer to a question."""

    async def body(clock: Clock) -> None:
        site = GroupSite()
        site.hosts.answers[kind] = None
        site.hosts.opens = kind is not DeviceOpened
        began_s = clock.now_s
        asyncio.get_running_loop().call_later(1.0, lambda: site.hosts.opened[1].die("worker 1 is gone"))
        failure = await failure_of_start(site)
        assert type(failure) is WorkerLost and failure.message == "worker 1 is gone"
        assert clock.now_s - began_s == pytest.approx(1.0, abs=0.01)

    run(monkeypatch, body)


@pytest.mark.parametrize("kind", [MeasureCosts, Assign, EncodePrompt, CloseTicket])
def test_a_worker_that_dies_with_its_answer_ends_all_at_once(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
        site.hosts.last = kind
        began_s = clock.now_s
        failure = await failure_of_start(site)
        assert type(failure) is WorkerLost and failure.message == "the worker died"
        assert clock.now_s - began_s < 1.0

    run(monkeypatch, body)


def test_a_start_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(start_timeout_s=30.0)
        site.hosts.answers[Assign] = None
        with pytest.raises(StartError, match="not ready after 30 s"):
            await site.bring_up()
        site.hosts.opened[0].tell(READY)  # too late, and no harm

    run(monkeypatch, body)


def test_what_workers_say_after_a_stop_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
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


def test_the_warm_up_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_module, "MIN_BLOCKS_OF_PATIENCE", 0)

    async def body(clock: Clock) -> None:
        site = GroupSite(stage_timeout_s=20.0)
        site.hosts.answers[CloseTicket] = None
        starting = asyncio.create_task(site.bring_up())
        await settle()
        await site.watch(21.0)
        with pytest.raises(WorkerLost, match="made no progress in time"):
            await starting

    run(monkeypatch, body)


def test_a_prompt_may_take_thirty_times_as_long_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(stage_timeout_s=20.0)
        site.hosts.answers[EncodePrompt] = None
        starting = asyncio.create_task(site.bring_up())
        await asyncio.sleep(2.0)
        (asked,) = [rank for rank, message in site.hosts.sent if isinstance(message, EncodePrompt)]
        site.hosts.opened[asked].tell(PromptEncoded(request=-1, embedding=EMBEDDING))
        await starting
        site.group.ask(EncodePrompt(request=0, text="x"))
        await site.watch(59.0)
        assert site.losses == []
        await site.watch(2.0)
        assert site.group.loss == (asked, LossReason.HUNG)

    run(monkeypatch, body)
