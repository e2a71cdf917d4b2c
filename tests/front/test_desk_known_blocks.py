"""Blocks that are known before the others begin: given with the request, or finished alone."""

from dataclasses import replace

import pytest

from engine.config import RolloutConfig
from engine.front.video import VideoState
from engine.messages import BlockTicket, ContextTicket, RestoreTicket
from tests.front import making
from tests.front.desk_stage import FAST, Stage

INITIAL = (making.embedding("one"), making.embedding("two"))


def serving(num_alone: int = 0) -> Stage:
    stage = Stage(rollout=RolloutConfig(block_first_blocks=num_alone))
    stage.serve()
    return stage


def blocks_sent(stage: Stage) -> list[BlockTicket]:
    return [ticket for ticket in stage.sent if isinstance(ticket, BlockTicket)]


def test_given_blocks_come_with_their_latents_and_the_next_one_opens() -> None:
    stage = serving()
    stage.open("a", replace(FAST, seconds=4.0, initial=INITIAL))
    stage.embed()
    stage.execute()
    sent = blocks_sent(stage)
    assert [ticket.given for ticket in sent] == [*INITIAL, *[None] * (len(sent) - 2)]
    assert [ticket.block for ticket in sent if ticket.opening] == [2]
    assert not any(ticket.alone for ticket in sent)


def test_without_given_blocks_the_first_opens() -> None:
    stage = serving()
    stage.open("a")
    stage.embed()
    assert [ticket.opening for ticket in blocks_sent(stage)] == [True, *[False] * (len(blocks_sent(stage)) - 1)]


def test_nothing_goes_before_a_block_is_finished_alone_and_is_context() -> None:
    stage = serving(num_alone=2)
    stage.open("a")
    stage.embed()
    assert [ticket.block for ticket in blocks_sent(stage)] == [0]
    stage.execute(most=2)
    assert [ticket.block for ticket in blocks_sent(stage)] == [0, 1]
    stage.execute(most=2)
    names = [(type(ticket).__name__, getattr(ticket, "block", None)) for ticket in stage.sent]
    assert names[:5] == [
        ("OpenTicket", None),
        ("BlockTicket", 0),
        ("ContextTicket", 0),
        ("BlockTicket", 1),
        ("ContextTicket", 1),
    ]
    assert names[5] == ("BlockTicket", 2)
    contexts = [ticket.latents for ticket in stage.sent if isinstance(ticket, ContextTicket)]
    assert contexts == [making.embedding("clean 0"), making.embedding("clean 1")]
    assert [ticket.alone for ticket in blocks_sent(stage)][:3] == [True, True, False]


def test_of_given_blocks_none_is_finished_alone() -> None:
    stage = serving(num_alone=3)
    stage.open("a", replace(FAST, initial=INITIAL))
    stage.embed()
    stage.execute(most=3)
    assert [(ticket.block, ticket.alone) for ticket in blocks_sent(stage)] == [(0, False), (1, False), (2, True)]


def test_a_video_that_ends_with_a_block_alone_waits_for_nothing() -> None:
    stage = serving(num_alone=1)
    video = stage.open("a", replace(FAST, seconds=0.1))
    stage.embed()
    stage.execute()
    assert video.state == VideoState.ENDED and stage.kinds(video) == ["OpenTicket", "BlockTicket", "CloseTicket"]


@pytest.mark.parametrize("when", ["before its latents came", "behind its context"])
def test_one_lost_beside_a_block_alone_is_made_again_the_same_way(when: str) -> None:
    stage = serving(num_alone=1)
    video = stage.open("a")
    stage.embed()
    stage.execute(most=None if when == "behind its context" else 1)
    stage.lose()
    stage.sent.clear()
    stage.serve()
    assert [type(ticket).__name__ for ticket in stage.sent] == ["OpenTicket", "BlockTicket"]
    stage.execute(most=2)
    assert isinstance(stage.sent[2], ContextTicket) and stage.sent[3].block == 1
    stage.execute()
    assert video.state == VideoState.RUNNING and stage.take(video)[:2] == [b"a0", b"a1"]


def test_known_blocks_are_restored_as_clean_context_in_every_stage() -> None:
    shape = RolloutConfig(block_first_blocks=2, window_latent_frames=12)
    log = making.log(rollout=shape, num_given=1)
    log.set_prompt(0, "x", making.embedding("x"))
    for stage in range(shape.num_stages):
        log.save(making.latents(0, stage))  # given: each stage tells what its cache pass read
    log.save(making.latents(1, shape.num_stages - 1))  # finished alone: the last stage tells it for all
    making.save_blocks(log, range(2, 4), shape)
    assert log.can_restore(3) and log.can_restore(4)
    tickets = [ticket for ticket in log.restoring_tickets(3) if isinstance(ticket, RestoreTicket)]
    assert [(ticket.block, ticket.clean, len(ticket.latents)) for ticket in tickets] == [
        (0, True, 4),
        (1, True, 4),
        (2, False, 4),
    ]
