"""One worker group that serves: what reaches whom, what ends it and who is told."""

import pytest

from engine.messages import BlockDone, Cancel, EncodePrompt, PromptTicket, WorkBegins
from engine.observe import LossReason
from tests.fleet.fake_workers import EMBEDDING, Clock, GroupSite, beat, run, settle

TICKET = PromptTicket(video="v", embedding=EMBEDDING)


# --- what reaches whom ---


def test_a_ticket_goes_to_all_workers_of_its_chain_and_a_question_to_who_embeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(6)
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
        site = GroupSite()
        await site.bring_up()
        await settle()
        site.messages.clear()
        done = BlockDone(video="v", block=0, num_frames=9, data=b"", latents=None, decode_s=0.0, encode_s=0.0)
        site.hosts.opened[1].tell(done)
        assert site.messages == [(1, done)]

    run(monkeypatch, body)


def test_pages_are_what_workers_last_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite()
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
        site = GroupSite()
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
        site = GroupSite()
        await site.bring_up()
        site.hosts.opened[1].tell(WorkBegins(videos=("v",)))
        site.hosts.opened[1].tell(beat(5))
        site.hosts.opened[1].die()
        await settle()
        assert site.losses == [("the worker died", frozenset())]

    run(monkeypatch, body)


async def bring_up_silent(site: GroupSite) -> None:
    """A group whose workers will say nothing about the ticket."""
    await site.bring_up()
    await settle()
    site.hosts.answers[PromptTicket] = None
    site.messages.clear()


def test_a_worker_that_owes_work_and_is_silent_is_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(stage_timeout_s=20.0)
        await bring_up_silent(site)
        site.group.send_chain(0, TICKET)
        first, second = site.hosts.opened
        first.tell(WorkBegins(videos=("v",)))
        await site.watch(19.5)
        assert site.losses == [] and not first.aborted
        await site.watch(1.0)
        ((sentence, suspects),) = site.losses
        assert sentence.startswith("worker 0 on cpu (") and sentence.endswith("made no progress in time")
        assert suspects == {"v"} and site.group.loss == (0, LossReason.HUNG)
        assert first.aborted and not second.aborted, "it is asked for its stack"
        assert not first.alive and not second.alive

    run(monkeypatch, body)


def test_nobody_is_hung_who_owes_nothing_or_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(stage_timeout_s=20.0)
        await bring_up_silent(site)
        await site.watch(100.0)
        site.group.send_chain(0, TICKET)
        for passed in (4, 4, 5):
            await site.watch(15.0)
            site.hosts.opened[0].tell(beat(passed))
        await site.watch(15.0)
        assert site.losses == []
        await site.watch(10.0)
        assert site.group.loss == (1, LossReason.HUNG), "the one behind owes it since the one before has passed it"

    run(monkeypatch, body)


def test_a_front_that_slept_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(clock: Clock) -> None:
        site = GroupSite(stage_timeout_s=20.0)
        await bring_up_silent(site)
        await site.group.check_progress()
        site.group.send_chain(0, TICKET)
        clock.now_s += 3600.0
        await site.group.check_progress()
        await site.watch(19.0)
        assert site.losses == []
        await site.watch(2.0)
        assert len(site.losses) == 1

    run(monkeypatch, body)
