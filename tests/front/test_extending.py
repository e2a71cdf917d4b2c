"""What continues an ended video: which blocks workers make for it, and which of them it shows."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import BlockGone, Conflict
from engine.front.events import Cancelled, Paused, PromptAsked
from engine.front.extending import extended
from engine.front.log import SCRIPT_LENGTH
from engine.front.pacing import Cursor, Progress, urgency
from engine.front.video import Recovery, Video, VideoState
from engine.messages import BlockTicket, OpenTicket, PromptTicket, RestoreTicket
from engine.request import Continuation, Pace, PromptAt, VideoRequest
from tests.front import making
from tests.front.desk_stage import FAST, Stage

FPS = 16
FIRST, OTHERS = 9, 12  # frames of a block


def of_frames(num_frames: int, **fields: Any) -> VideoRequest:
    return replace(FAST, seconds=num_frames / FPS, **fields)


def made(request: VideoRequest, stage: Stage | None = None) -> tuple[Stage, Video]:
    """A video that has ended."""
    stage = stage or Stage()
    if stage.desk.videos == ():
        stage.serve()
    video = stage.open(f"v{len(stage.desk.videos)}", request, linger_s=None, is_read=False)
    stage.embed()
    stage.execute()
    assert video.state == VideoState.ENDED
    return stage, video


def tickets(stage: Stage, video: Video) -> list[Any]:
    return [ticket for ticket in stage.sent if ticket.video == video.id]


def blocks(stage: Stage, video: Video) -> list[BlockTicket]:
    return [ticket for ticket in tickets(stage, video) if isinstance(ticket, BlockTicket)]


@pytest.mark.parametrize("num_frames", [1, 8, FIRST, FIRST + 1, FIRST + OTHERS, 40])
@pytest.mark.parametrize("more", [1, 5, 12, 50])
def test_two_videos_show_each_frame_of_a_longer_one_once(num_frames: int, more: int) -> None:
    stage, first = made(of_frames(num_frames))
    _, second = made(extended(first, more / FPS, None, ""), stage)
    _, whole = made(of_frames(num_frames + more), stage)

    def frames(video: Video) -> list[tuple[int, int]]:
        shown = [(one.block, one.num_skipped + at) for one in blocks(stage, video) for at in range(one.num_frames)]
        return shown

    assert frames(first) + frames(second) == frames(whole)
    assert [one.last for one in blocks(stage, second)].index(True) == len(blocks(stage, second)) - 1
    assert blocks(stage, second)[0].block == 0 and blocks(stage, second)[-1].block == blocks(stage, whole)[-1].block
    fragments = [second.log.fragment(block) for block in range(second.log.next_block)]
    assert [one.block for one in fragments] == list(range(len(fragments)))
    assert sum(one.num_frames for one in fragments) == more and fragments[0].start_s == 0
    assert all(one.start_s == before.start_s + before.duration_s for before, one in itertools.pairwise(fragments))


def test_it_is_told_as_the_source_was_up_to_its_end() -> None:
    prompts = (PromptAt(at_s=0, text="x"), PromptAt(at_s=1, text="y"), PromptAt(at_s=9, text="never"))
    stage, first = made(of_frames(FIRST + 3 * OTHERS, prompts=prompts))
    _, second = made(extended(first, 1.0, None, "me"), stage)
    assert second.request.continues == Continuation(
        source=first.id, first_frame=FIRST + 3 * OTHERS, prompts=((0, "x"), (2, "y"))
    )
    assert second.request.owner == "me" and second.request.prompts == (PromptAt(at_s=0, text="y"),)
    [opened, *rest] = tickets(stage, second)
    assert isinstance(opened, OpenTicket) and opened.embedding == making.embedding("x")
    assert (opened.first_block, opened.from_frame, opened.first_sequence) == (4, 0, 1)
    told = [one.embedding if isinstance(one, PromptTicket) else one.block for one in rest[:-1]]
    assert told == [0, 1, making.embedding("y"), 2, 3, 4, 5], "no prompt is new where the two meet"
    assert [(mark.block, mark.text) for mark in second.prompts] == [(0, "y")]


@pytest.mark.parametrize(("cut", "at"), [(0, 0), (5, 1)])
def test_another_prompt_holds_from_the_first_whole_block(cut: int, at: int) -> None:
    stage, first = made(of_frames(FIRST + 2 * OTHERS - cut))
    _, second = made(extended(first, 2.0, "z", ""), stage)
    rest = tickets(stage, second)[1:-1]
    place = next(index for index, one in enumerate(rest) if isinstance(one, PromptTicket))
    assert rest[place + 1].block == second.progress.before + at == 3 and rest[place].embedding == making.embedding("z")
    marks = [(mark.block, mark.text) for mark in second.prompts]
    assert marks == ([(0, "z")] if at == 0 else [(0, "x"), (1, "z")])


def test_an_extended_video_can_be_extended() -> None:
    stage, first = made(of_frames(30))
    _, second = made(extended(first, 20 / FPS, "y", ""), stage)
    _, third = made(extended(second, 1.0, None, ""), stage)
    assert third.request.continues is not None and second.request.continues is not None
    assert (third.request.continues.source, third.request.continues.first_frame) == (second.id, 50)
    assert third.request.continues.prompts == ((0, "x"), (3, "y"))


def test_a_prompt_that_comes_while_it_is_made_again_holds_from_its_own_blocks() -> None:
    stage, first = made(of_frames(FIRST + 2 * OTHERS - 1))
    second = stage.open("b", extended(first, 2.0, None, ""), linger_s=None, is_read=False)
    stage.embed()
    stage.execute(1)
    stage.tell(PromptAsked(second, "z", 1))
    stage.embed()
    assert stage.answers[1] == 1


def test_a_continuation_that_lost_its_workers_or_slept_goes_on() -> None:
    stage, first = made(of_frames(FIRST + 2 * OTHERS))
    second = stage.open("b", extended(first, 6.0, None, ""), linger_s=None, is_read=False)
    stage.embed()
    while second.progress.done < 2:
        stage.execute(1)
    assert second.progress.done == 2
    stage.lose()
    stage.serve()
    opened = tickets(stage, second)[-3]
    assert isinstance(opened, OpenTicket) and second.recoveries == [Recovery(block=2, exact=True)]
    assert (opened.first_block, opened.from_frame, opened.first_sequence) == (5, 0, 1)
    stage.tell(Paused(second))
    making.save_blocks(second.log, range(-3, 5))
    assert second.log.can_restore(2)
    restored = [one for one in second.log.restoring_tickets(2) if isinstance(one, RestoreTicket)]
    assert [one.block for one in restored][-2:] == [3, 4]


def test_what_is_made_again_before_it_makes_nobody_wait() -> None:
    continues = Continuation(source="a", first_frame=33, prompts=((0, "x"),))
    request = replace(making.request(Pace.REALTIME), continues=continues)
    progress = Progress(request=request, rollout=making.TINY.rollout, opened_at=0.0, issued=-1)
    watched = Progress(request=making.request(Pace.REALTIME), rollout=making.TINY.rollout, opened_at=50.0)
    watched.leader = progress.leader = Cursor(first_block=0, next_block=0)
    assert urgency(watched) < urgency(progress)
    progress.issued = 0
    assert urgency(progress) < urgency(watched)


def test_what_cannot_be_extended_is_refused() -> None:
    stage = Stage()
    stage.serve()
    video = stage.open("a")
    with pytest.raises(Conflict, match="when it has ended"):
        extended(video, 1.0, None, "")
    stage.tell(Cancelled(video))
    stage.execute()
    with pytest.raises(Conflict, match="before its first block"):
        extended(video, 1.0, None, "")
    _, other = made(of_frames(30), stage)
    for block in range(3, 3 + SCRIPT_LENGTH):
        other.log.set_prompt(block, "x", making.embedding("x"))
    with pytest.raises(BlockGone, match="too many"):
        extended(other, 1.0, None, "")
