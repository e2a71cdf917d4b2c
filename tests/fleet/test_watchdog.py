"""Who owes work and who hangs, on invented clocks."""

from dataclasses import replace

import pytest

from engine.fleet.watchdog import Watchdog
from engine.law.placement import Plan
from tests.front import making

TIMEOUT_S = 20.0
AGES_S = 1e9


def watchdog(num_devices: int) -> Watchdog:
    return Watchdog(making.plan(num_devices), TIMEOUT_S)


def test_a_group_that_was_asked_for_nothing_rests_for_ever() -> None:
    for num_devices in (1, 2, 5, 10):
        assert watchdog(num_devices).hung(AGES_S) is None


@pytest.mark.parametrize("num_devices", [1, 2, 5])
def test_a_head_that_passed_nothing_hangs(num_devices: int) -> None:
    watch = watchdog(num_devices)
    watch.sent(0, 1000.0)
    assert watch.hung(1000.0 + TIMEOUT_S) is None
    assert watch.hung(1000.1 + TIMEOUT_S) == 0
    assert watch.hung(AGES_S) == 0, "the workers behind the head owe nothing"


def test_a_worker_hangs_when_the_one_before_it_passed_more() -> None:
    watch = watchdog(3)
    for ticket in range(3):
        watch.sent(0, 10.0 + ticket)
    watch.beat(0, 3, 15.0)
    watch.beat(1, 1, 16.0)
    assert watch.hung(16.0 + TIMEOUT_S) is None
    watch.beat(2, 1, 17.0)
    assert watch.hung(36.1) == 1
    watch.beat(1, 3, 37.0)
    assert watch.hung(57.0) is None
    assert watch.hung(57.1) == 2
    watch.beat(2, 3, 58.0)
    assert watch.hung(AGES_S) is None


def test_a_chain_that_passed_everything_rests_however_long() -> None:
    watch = watchdog(2)
    for ticket in range(1, 6):
        now = 1000.0 * ticket
        watch.sent(0, now)
        assert watch.hung(now) is None, "the clock starts when it begins to owe"
        watch.beat(0, ticket, now + 19.0)
        assert watch.hung(now + 19.0) is None
        watch.beat(1, ticket, now + 38.0)
        assert watch.hung(now + 999.0) is None


def test_signs_of_life_without_progress_are_signs_of_life() -> None:
    watch = watchdog(1)
    watch.sent(0, 0.0)
    for now in range(19, 1000, 19):
        watch.beat(0, 0, float(now))
        assert watch.hung(now + TIMEOUT_S) is None
    assert watch.hung(988.0 + TIMEOUT_S + 0.1) == 0


def test_new_tickets_do_not_excuse_a_silent_worker() -> None:
    watch = watchdog(1)
    for now in range(21):
        watch.sent(0, float(now))
    assert watch.hung(20.1) == 0


def test_beats_of_one_worker_do_not_excuse_another() -> None:
    watch = watchdog(2)
    for now in range(22):
        watch.sent(0, float(now))
        watch.beat(0, now + 1, float(now))
    assert watch.hung(20.0) is None
    assert watch.hung(20.1) == 1


def test_a_worker_that_ran_ahead_of_what_is_known_of_its_neighbour_owes_nothing() -> None:
    watch = watchdog(2)
    watch.sent(0, 0.0)
    watch.beat(1, 1, 1.0)
    assert watch.hung(2.0) is None
    watch.beat(0, 1, 2.0)
    assert watch.hung(AGES_S) is None


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_question_is_owed_by_who_was_asked(rank: int) -> None:
    watch = watchdog(3)
    watch.asked(rank, 100.0)
    watch.asked(rank, 110.0)
    assert watch.hung(120.0) is None
    assert watch.hung(120.1) == rank
    watch.answered(rank, 125.0)
    assert watch.hung(145.0) is None
    assert watch.hung(145.1) == rank, "the second question is open"
    watch.answered(rank, 146.0)
    assert watch.hung(AGES_S) is None


def test_of_several_the_one_silent_for_longest_hangs() -> None:
    watch = watchdog(3)
    watch.asked(2, 1.0)
    watch.sent(0, 2.0)
    watch.asked(1, 3.0)
    assert watch.hung(AGES_S) == 2
    watch.answered(2, 4.0)
    assert watch.hung(AGES_S) == 0
    watch.beat(0, 1, 5.0)
    assert watch.hung(AGES_S) == 1


def test_replicas_owe_only_what_their_own_chain_was_sent() -> None:
    plan = making.plan(10)
    watch = Watchdog(plan, TIMEOUT_S)
    first, second = ([placement.rank for placement in chain] for chain in plan.chains)
    assert (first, second) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
    watch.sent(1, 0.0)
    assert watch.hung(20.1) == 5
    for rank in second[:-1]:
        watch.beat(rank, 1, 21.0)
    assert watch.hung(41.1) == 9
    watch.beat(9, 1, 42.0)
    assert watch.hung(AGES_S) is None
    watch.sent(0, 50.0)
    assert watch.hung(70.1) == 0


def test_a_worker_that_embeds_a_prompt_may_be_silent_for_longer() -> None:
    watch = watchdog(1)
    watch.allow_text(3 * TIMEOUT_S)
    watch.sent(0, 0.0)
    watch.asked(0, 0.0)
    assert watch.hung(60.0) is None and watch.hung(60.1) == 0
    watch.answered(0, 50.0)
    assert watch.hung(70.0) is None and watch.hung(70.1) == 0, "the ticket is still owed"
    watch.allow_text(1.0)
    watch.asked(0, 60.0)
    assert watch.hung(70.1) == 0, "never less patience than for passes"


def test_prompts_on_the_host_are_no_reason_to_pass_no_tickets() -> None:
    plan = making.plan(1)
    watch = Watchdog(Plan(placements=(replace(plan.placements[0], text_on_host=True),)), TIMEOUT_S)
    watch.allow_text(3 * TIMEOUT_S)
    watch.asked(0, 0.0)
    assert watch.hung(60.0) is None
    watch.sent(0, 10.0)
    assert watch.hung(30.1) == 0
    watch.beat(0, 1, 31.0)
    assert watch.hung(91.0) is None and watch.hung(91.1) == 0


def test_while_the_front_sleeps_nobody_is_late() -> None:
    watch = watchdog(2)
    watch.sent(0, 0.0)
    watch.slept(3600.0)
    assert watch.hung(3600.0 + TIMEOUT_S) is None and watch.hung(3600.1 + TIMEOUT_S) == 0
