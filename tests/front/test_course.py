"""What is kept of a video to tell it to the next workers: prompts by block, and the latents of the last window."""

import pytest

from engine.config import Order, RolloutConfig
from engine.front.course import Course
from engine.law.schedule import attended_blocks
from engine.messages import PromptTicket, RestoreTicket
from tests.front import making

WINDOWS = [(7, 0), (7, 1), (4, 2), (2, 0), (3, 2), (1, 0)]


def rollout(window: int = 3, sinks: int = 0, order: Order = Order.STEP_FIRST) -> RolloutConfig:
    return RolloutConfig(order=order, window_latent_frames=3 * window, sink_latent_frames=3 * sinks)


def test_a_prompt_holds_from_its_block_until_the_next() -> None:
    course = making.course(rollout(), 3, 7)
    course.set_prompt(5, making.embedding("steered"))
    texts = [course.prompt_at(block).data for block in range(9)]
    assert texts == [b"prompt 0"] * 3 + [b"prompt 3"] * 2 + [b"steered"] * 2 + [b"prompt 7"] * 2
    changes = {block: change for block in range(9) if (change := course.prompt_change(block)) is not None}
    assert changes == {
        block: PromptTicket(video="a", embedding=making.embedding(text))
        for block, text in ((3, "prompt 3"), (5, "steered"), (7, "prompt 7"))
    }


def test_a_video_begins_with_a_prompt() -> None:
    with pytest.raises(AssertionError, match="begins with a prompt"):
        Course("a", rollout(), {1: making.embedding("late")})


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("window", "sinks"), WINDOWS)
def test_saved_blocks_suffice_and_are_bounded(order: Order, window: int, sinks: int) -> None:
    shape = rollout(window, sinks, order)
    course = making.course(shape)
    for done in range(1, 60):
        making.save_blocks(course, range(done - 1, done), shape)
        course.forget_before(done)
        assert course.can_restore(done)
        tickets = course.restoring_tickets(done)
        assert [ticket.block for ticket in tickets if isinstance(ticket, RestoreTicket)] == list(
            attended_blocks(shape, done)
        )
        assert len(course._saved) <= window - 1


def test_blocks_that_are_under_way_are_kept() -> None:
    course = making.course(rollout())
    making.save_blocks(course, range(8))  # two of them are saved and not finished yet
    course.forget_before(6)
    assert [course.can_restore(block) for block in (5, 6, 7, 8, 9)] == [False, True, True, True, False]


def test_latents_of_every_writing_stage_are_needed() -> None:
    course = making.course(rollout())
    making.save_blocks(course, range(4, 5))
    for stage in (3, 0, 2):
        course.save(making.latents(5, stage))
        assert not course.can_restore(6)
    course.save(making.latents(5, 1))
    assert course.can_restore(6)
    ticket = course.restoring_tickets(6)[1]
    assert isinstance(ticket, RestoreTicket)
    assert ticket.latents == tuple((stage, making.embedding(f"5.{stage}")) for stage in range(4))


def test_block_first_needs_the_last_stage_only() -> None:
    course = making.course(rollout(order=Order.BLOCK_FIRST))
    for block in (4, 5):
        assert not course.can_restore(6)
        course.save(making.latents(block, 3))
    assert course.restoring_tickets(6) == [
        RestoreTicket(video="a", block=block, latents=((3, making.embedding(f"{block}.3")),)) for block in (4, 5)
    ]


def test_block_0_needs_nothing() -> None:
    course = making.course(rollout(), 2)
    assert course.can_restore(0) and course.restoring_tickets(0) == []
    assert course.opening_prompt(0) == making.embedding("prompt 0")


@pytest.mark.parametrize("forgets", [False, True])
def test_restored_blocks_get_the_prompts_they_were_made_with(forgets: bool) -> None:
    course = making.course(rollout(5), 3, 7, 8, 10)
    making.save_blocks(course, range(10))
    if forgets:
        course.forget_before(10)
        course.forget_prompts_before(10)
    assert course.opening_prompt(10) == making.embedding("prompt 3")
    told = [
        ticket.block if isinstance(ticket, RestoreTicket) else ticket.embedding.data.decode()
        for ticket in course.restoring_tickets(10)
    ]
    assert told == [6, "prompt 7", 7, "prompt 8", 8, 9]
    assert course.prompt_change(10) == PromptTicket(video="a", embedding=making.embedding("prompt 10"))
    assert set(course._prompts) == ({3, 7, 8, 10} if forgets else {0, 3, 7, 8, 10})


def test_sinks_keep_the_first_prompt() -> None:
    course = making.course(rollout(4, 1), 3, 20)
    making.save_blocks(course, range(10))
    course.forget_prompts_before(10)
    assert course.opening_prompt(10) == making.embedding("prompt 0")
    first, change, *rest = course.restoring_tickets(10)
    assert isinstance(first, RestoreTicket) and first.block == 0
    assert change == PromptTicket(video="a", embedding=making.embedding("prompt 3"))
    assert [ticket.block for ticket in rest if isinstance(ticket, RestoreTicket)] == [8, 9]


def test_a_prompt_that_begins_where_a_video_without_context_goes_on_opens_it() -> None:
    course = making.course(rollout(1), 4)
    course.forget_prompts_before(6)
    assert course.opening_prompt(6) == making.embedding("prompt 4")
    assert course.restoring_tickets(6) == []
