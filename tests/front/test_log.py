"""What is kept of a video, for readers and for the next workers, and how far back."""

import pytest

from engine.config import Order, RolloutConfig
from engine.engine_config import Keep
from engine.front.log import BlockLog
from engine.law.window import attended_blocks
from engine.messages import PromptTicket, RestoreTicket
from tests.front import making

WINDOWS = [(7, 0), (7, 1), (4, 2), (2, 0), (3, 2), (1, 0)]


def rollout(window: int = 3, sinks: int = 0, order: Order = Order.STEP_FIRST) -> RolloutConfig:
    return RolloutConfig(order=order, window_latent_frames=3 * window, sink_latent_frames=3 * sinks)


def test_a_prompt_holds_from_its_block_until_the_next() -> None:
    log = making.prepared_log(rollout(), 3, 7)
    log.set_prompt(5, "steered", making.embedding("steered"))
    texts = [log.prompt_at(block).data for block in range(9)]
    assert texts == [b"prompt 0"] * 3 + [b"prompt 3"] * 2 + [b"steered"] * 2 + [b"prompt 7"] * 2
    changes = {block: change for block in range(9) if (change := log.prompt_change(block)) is not None}
    assert changes == {
        block: PromptTicket(video="a", embedding=making.embedding(text))
        for block, text in ((3, "prompt 3"), (5, "steered"), (7, "prompt 7"))
    }


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("window", "sinks"), WINDOWS)
def test_saved_blocks_suffice_and_are_bounded(order: Order, window: int, sinks: int) -> None:
    shape = rollout(window, sinks, order)
    log = making.prepared_log(shape)
    for done in range(1, 60):
        making.save_blocks(log, range(done - 1, done), shape)
        log.forget_saved_before(done)
        assert log.can_restore(done)
        tickets = log.restoring_tickets(done)
        assert [ticket.block for ticket in tickets if isinstance(ticket, RestoreTicket)] == list(
            attended_blocks(shape, done)
        )
        assert len(log._saved) <= window - 1


def test_blocks_that_are_under_way_are_kept() -> None:
    log = making.prepared_log(rollout())
    making.save_blocks(log, range(8))  # two of them are saved and not finished yet
    log.forget_saved_before(6)
    assert [log.can_restore(block) for block in (5, 6, 7, 8, 9)] == [False, True, True, True, False]


def test_latents_of_every_writing_stage_are_needed() -> None:
    log = making.prepared_log(rollout())
    making.save_blocks(log, range(4, 5))
    for stage in (3, 0, 2):
        log.save(making.latents(5, stage))
        assert not log.can_restore(6)
    log.save(making.latents(5, 1))
    assert log.can_restore(6)
    ticket = log.restoring_tickets(6)[1]
    assert isinstance(ticket, RestoreTicket)
    assert ticket.latents == tuple((stage, making.embedding(f"5.{stage}")) for stage in range(4))


def test_block_first_needs_the_last_stage_only() -> None:
    log = making.prepared_log(rollout(order=Order.BLOCK_FIRST))
    for block in (4, 5):
        assert not log.can_restore(6)
        log.save(making.latents(block, 3))
    assert log.restoring_tickets(6) == [
        RestoreTicket(video="a", block=block, latents=((3, making.embedding(f"{block}.3")),)) for block in (4, 5)
    ]


def test_block_0_needs_nothing() -> None:
    log = making.prepared_log(rollout(), 2)
    assert log.can_restore(0) and log.restoring_tickets(0) == []
    assert log.opening_prompt(0) == making.embedding("prompt 0")


@pytest.mark.parametrize("forgets", [False, True])
def test_restored_blocks_get_the_prompts_they_were_made_with(forgets: bool) -> None:
    log = making.prepared_log(rollout(5), 3, 7, 8, 10)
    making.save_blocks(log, range(10))
    if forgets:
        log.forget_saved_before(10)
        log.forget_prompts_before(10)
    assert log.opening_prompt(10) == making.embedding("prompt 3")
    told = [
        ticket.block if isinstance(ticket, RestoreTicket) else ticket.embedding.data.decode()
        for ticket in log.restoring_tickets(10)
    ]
    assert told == [6, "prompt 7", 7, "prompt 8", 8, 9]
    assert log.prompt_change(10) == PromptTicket(video="a", embedding=making.embedding("prompt 10"))
    assert set(log._prompts) == ({3, 7, 8, 10} if forgets else {0, 3, 7, 8, 10})


def test_sinks_keep_the_first_prompt() -> None:
    log = making.prepared_log(rollout(4, 1), 3, 20)
    making.save_blocks(log, range(10))
    log.forget_prompts_before(10)
    assert log.opening_prompt(10) == making.embedding("prompt 0")
    first, change, *rest = log.restoring_tickets(10)
    assert isinstance(first, RestoreTicket) and first.block == 0
    assert change == PromptTicket(video="a", embedding=making.embedding("prompt 3"))
    assert [ticket.block for ticket in rest if isinstance(ticket, RestoreTicket)] == [8, 9]


def test_a_prompt_that_begins_where_a_video_without_context_goes_on_opens_it() -> None:
    log = making.prepared_log(rollout(1), 4)
    log.forget_prompts_before(6)
    assert log.opening_prompt(6) == making.embedding("prompt 4")
    assert log.restoring_tickets(6) == []


def append(keep: Keep, count: int, *, unread: int | None = None, num_bytes: int = 10) -> BlockLog:
    log = making.log(keep=keep)
    log.set_prompt(0, "first", making.embedding("first"))
    for block in range(count):
        log.append(making.fragment(block, num_bytes), unread=count if unread is None else unread)
    return log


@pytest.mark.parametrize(
    ("keep", "first"),
    [
        (Keep(), 0),
        (Keep(num_blocks=7), 13),
        (Keep(seconds=3.0), 16),  # four blocks of 0.75 s
        (Keep(num_bytes=55), 15),
        (Keep(num_bytes=55, num_blocks=3), 17),
        (Keep(num_blocks=0), 19),  # the newest always stays
    ],
)
def test_a_rule_says_what_stays_behind_the_newest_block(keep: Keep, first: int) -> None:
    log = append(keep, 20)
    assert (log.first_block, log.next_block) == (first, 20)
    assert [log.fragment(block) for block in range(first, 20)] == [making.fragment(b) for b in range(first, 20)]
    assert (log.num_bytes, log.made_bytes) == (10 * (20 - first), 200)
    for gone in (first - 1, 20):
        with pytest.raises(AssertionError):
            log.fragment(gone)


def test_what_the_leading_reader_has_not_taken_stays() -> None:
    log = append(Keep(num_blocks=2), 20, unread=5)
    assert log.first_block == 5
    log.append(making.fragment(20), unread=12)
    assert log.first_block == 12


def test_a_log_is_appended_to_in_order() -> None:
    with pytest.raises(AssertionError, match="block 2 came, 1 is next"):
        append(Keep(), 1).append(making.fragment(2), unread=0)


def test_the_prompts_of_kept_blocks_are_told() -> None:
    log = append(Keep(num_blocks=4), 8)
    for block in (5, 9):
        log.set_prompt(block, f"from {block}", making.embedding("x"))
    assert log.texts == {0: "first", 5: "from 5", 9: "from 9"}
    for block in range(8, 10):
        log.append(making.fragment(block), unread=99)
    assert (log.first_block, log.texts) == (6, {5: "from 5", 9: "from 9"})


def test_a_closed_log_is_for_readers_alone() -> None:
    log = append(Keep(), 3)
    making.save_blocks(log, range(3))
    log.close()
    assert not log.is_prepared and not log.can_restore(3)
    assert log.fragment(2) == making.fragment(2) and log.texts == {0: "first"}
