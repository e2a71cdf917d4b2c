"""Paused videos: what they keep and for how long, how they sleep and wake, and what is not held against them."""

from typing import Any

import pytest

from engine.errors import Conflict, EngineUnavailable
from engine.front.events import Cancelled, Drained, Paused, Polled, PromptAsked, Resumed, TimePassed
from engine.front.story import Paused as PausedTold
from engine.front.story import Queued, Recovered
from engine.front.story import Resumed as ResumedTold
from engine.front.video import Recovery, Video, VideoState
from engine.messages import BlockTicket, CloseTicket, OpenTicket
from engine.request import EndReason, Pace, VideoRequest
from tests.front import making
from tests.front.desk_stage import FAST, Stage

LIVE = making.request(Pace.REALTIME)
HOLD_S, LIMIT_S = 60.0, 3600.0


def running(request: VideoRequest = FAST, num_blocks: int = 3, **settings: Any) -> tuple[Stage, Video]:
    """A video with some blocks, and one more that is under way."""
    stage = Stage(pause_hold_s=HOLD_S, pause_limit_s=LIMIT_S, **{"max_inflight_blocks": 1, **settings})
    stage.serve()
    video = stage.open("a", request)
    stage.embed()
    stage.execute(1 + num_blocks)
    assert (video.progress.done, video.progress.issued) == (num_blocks, num_blocks + 1)
    return stage, video


def asleep(request: VideoRequest = FAST) -> tuple[Stage, Video]:
    stage, video = running(request)
    stage.tell(Paused(video))
    stage.now += HOLD_S
    stage.tell(TimePassed())
    stage.execute()
    assert video.state == VideoState.SLEEPING
    return stage, video


def blocks(stage: Stage, video: Video) -> list[int]:
    return [ticket.block for ticket in stage.sent if isinstance(ticket, BlockTicket) and ticket.video == video.id]


def told(video: Video) -> list[Any]:
    found, number = [], 0
    while (one := video.story.after(number)) is not None:
        number, happening = one
        found.append(happening)
    return found


def test_no_block_is_begun_in_a_pause_and_those_under_way_are_made() -> None:
    stage, video = running()
    stage.tell(Paused(video))
    stage.execute()
    stage.take(video)
    assert blocks(stage, video) == [0, 1, 2, 3] and video.progress.done == 4
    assert stage.desk.status(video, stage.now).is_paused and video.state == VideoState.RUNNING
    stage.tell(Resumed(video))
    assert blocks(stage, video)[-1] == 4 and not stage.desk.status(video, stage.now).is_paused
    assert [one for one in told(video) if isinstance(one, PausedTold | ResumedTold)] == [PausedTold(), ResumedTold()]


def test_pausing_and_resuming_twice_changes_nothing() -> None:
    stage, video = running()
    stage.tell(Resumed(video))
    before = told(video)
    assert not any(isinstance(one, ResumedTold) for one in before)
    stage.tell(Paused(video))
    stage.now += HOLD_S - 1
    stage.tell(Paused(video))
    assert told(video) == [*before, PausedTold()]
    stage.now += 1
    stage.tell(TimePassed())
    assert video.state == VideoState.CLOSING, "the hold counts from the first"


def test_a_video_that_is_paused_for_long_frees_its_place_and_is_made_again_when_resumed() -> None:
    stage, video = running(max_videos=1)
    other = stage.open("b")
    stage.embed()
    stage.tell(Paused(video))
    stage.execute()
    stage.now += HOLD_S
    assert stage.timer == stage.now
    stage.tell(TimePassed())
    assert isinstance(stage.sent[-1], CloseTicket) and other.state == VideoState.QUEUED
    stage.execute(1)
    assert (video.state, other.state) == (VideoState.SLEEPING, VideoState.RUNNING)
    assert not video.has_outcome and stage.take(video) == [b"a0", b"a1", b"a2", b"a3"]
    stage.tell(Resumed(video))
    assert stage.desk.status(video, stage.now).queue_position == 1 and isinstance(told(video)[-1], Queued)
    stage.tell(Cancelled(other))
    stage.execute(4)
    assert [type(ticket) for ticket in stage.sent if ticket.video == "a"][-2:] == [OpenTicket, BlockTicket]
    assert video.recoveries == [Recovery(block=4, exact=True)] and told(video)[-1] == Recovered(4, exact=True)
    stage.execute(6)
    assert blocks(stage, video)[4:10] == [0, 1, 2, 3, 4, 5] and stage.take(video)[0] == b"a4"


@pytest.mark.parametrize("is_saved", [False, True])
def test_one_that_cannot_be_made_again_is_restored_or_ends(is_saved: bool) -> None:
    stage, video = running()
    stage.tell(Paused(video))
    stage.now += HOLD_S
    stage.tell(TimePassed())
    video.log._prompts = {1: video.log.prompt_at(0)}  # as if it had been too old, and had another prompt before
    if is_saved:
        making.save_blocks(video.log, range(4))
    stage.execute()
    assert (video.state == VideoState.SLEEPING) == is_saved
    if is_saved:
        stage.tell(Resumed(video))
        assert video.recoveries == [Recovery(block=4, exact=False)] and "RestoreTicket" in stage.kinds(video)
    else:
        assert video.failure is not None and video.failure.code == "engine_error"


def test_a_video_that_is_resumed_while_it_falls_asleep_is_queued_at_once() -> None:
    stage, video = running()
    stage.tell(Paused(video))
    stage.now += HOLD_S
    stage.tell(TimePassed())
    assert video.is_falling_asleep
    stage.tell(PromptAsked(video, "y", 7))
    stage.tell(Resumed(video))
    stage.embed()
    assert video.state == VideoState.CLOSING and stage.answers[7] == 4
    stage.execute(2)
    assert video.state == VideoState.RUNNING and not video.is_falling_asleep


@pytest.mark.parametrize("falls_asleep", [False, True])
def test_a_paused_video_sleeps_when_its_workers_are_lost(falls_asleep: bool) -> None:
    stage, video = running()
    stage.tell(Paused(video))
    if falls_asleep:
        stage.now += HOLD_S
        stage.tell(TimePassed())
    stage.lose()
    assert video.state == VideoState.SLEEPING
    stage.now += stage.config.recovery_grace_s + HOLD_S
    stage.tell(TimePassed())
    stage.serve()
    assert video.state == VideoState.SLEEPING and not video.has_outcome, "it waits for no worker"
    stage.tell(Resumed(video))
    assert video.state == VideoState.RUNNING and video.recoveries == [Recovery(block=3, exact=True)]


def test_a_video_that_waits_for_workers_sleeps_when_it_is_paused() -> None:
    stage, video = running()
    stage.lose()
    stage.tell(Paused(video))
    assert video.state == VideoState.SLEEPING
    stage.tell(Resumed(video))
    stage.serve()
    assert video.state == VideoState.RUNNING


def test_a_paused_video_of_the_queue_leaves_it_and_comes_back_behind_the_others() -> None:
    stage, first = running(max_videos=1)
    second, third = stage.open("b"), stage.open("c")
    stage.tell(Paused(second))  # before its prompt is embedded
    stage.embed()
    assert second.state == VideoState.SLEEPING and stage.desk.status(second, stage.now).is_queued
    stage.tell(Cancelled(first))
    stage.execute(2)
    assert third.state == VideoState.RUNNING
    stage.tell(Resumed(second))
    assert stage.desk.status(second, stage.now).queue_position == 1
    stage.tell(Cancelled(third))
    stage.execute()
    assert second.started_at is not None and second.recoveries == []


def test_who_waits_in_a_pause_is_told_of_no_stall() -> None:
    stage, video = running(LIVE, num_blocks=2)
    stage.take(video)
    stage.now += 0.1
    stage.tell(Paused(video))
    stage.execute()
    stage.take(video)
    stage.now += 30
    status = stage.desk.status(video, stage.now)
    assert (status.num_stalls, status.stalled_s, status.lead_s) == (0, 0.0, 0.0)
    stage.tell(Resumed(video))
    stage.now += 2
    assert stage.desk.status(video, stage.now).num_stalls == 0, "the first block after it is excused"
    stage.execute(1)
    stage.take(video)
    stage.now += 5
    assert stage.desk.status(video, stage.now).num_stalls == 1
    rate = stage.desk.status(video, stage.now).realtime_factor
    assert rate == pytest.approx(video.seconds_done / (stage.now - video.progress.opened_at - 30))


def test_a_resumed_video_is_no_more_urgent_than_one_whose_block_is_due_now() -> None:
    stage, video = running(LIVE, num_blocks=2)
    stage.take(video)
    stage.tell(Paused(video))
    stage.execute()
    stage.take(video)
    stage.now += 300
    stage.tell(Paused(video))
    stage.tell(Resumed(video))
    stage.execute()
    assert video.progress.lead_s(stage.now) is not None
    ahead_s = video.progress.start_s(video.progress.issued) - video.progress.start_s(video.progress.taken)
    assert ahead_s <= stage.config.lead_target_s + video.progress.full_block_s


def test_who_polls_a_paused_video_has_not_left() -> None:
    stage = Stage(pause_hold_s=HOLD_S)
    stage.serve()
    video = stage.open("a", LIVE, is_read=False)
    stage.tell(Polled(video, None, 10.0))
    stage.embed()
    stage.tell(Paused(video))
    stage.now += 35
    stage.tell(TimePassed())
    assert not video.has_outcome
    stage.tell(Resumed(video))
    while not video.has_outcome:
        stage.pass_time()
    assert video.end_reason == EndReason.CLIENT_DISCONNECT


@pytest.mark.parametrize("is_asleep", [False, True])
def test_a_paused_video_ends_as_any_other(is_asleep: bool) -> None:
    ends = {
        EndReason.CANCELLED: lambda stage, video: stage.tell(Cancelled(video)),
        EndReason.CLIENT_DISCONNECT: lambda stage, video: stage.leave(video),
        EndReason.DRAIN: lambda stage, _: stage.tell(Drained(EngineUnavailable("x", 1, "draining"))),
    }
    for reason, end in ends.items():
        stage, video = asleep() if is_asleep else running()
        if not is_asleep:
            stage.tell(Paused(video))
        end(stage, video)
        stage.execute()
        assert (video.state, video.end_reason) == (VideoState.ENDED, reason)
        assert stage.desk.live == ()


def test_one_that_is_cancelled_while_it_falls_asleep_ends() -> None:
    stage, video = running()
    stage.tell(Paused(video))
    stage.now += HOLD_S
    stage.tell(TimePassed())
    stage.tell(Cancelled(video))
    stage.execute()
    assert (video.state, video.end_reason) == (VideoState.ENDED, EndReason.CANCELLED)


def test_a_video_that_nobody_resumes_ends() -> None:
    stage, video = asleep()
    stage.now += LIMIT_S - HOLD_S
    assert stage.timer == stage.now
    stage.tell(TimePassed())
    assert (video.state, video.end_reason) == (VideoState.ENDED, EndReason.PAUSE_LIMIT)


@pytest.mark.parametrize("event", [Paused, Resumed])
def test_what_has_ended_or_ends_cannot_be_paused(event: type[Paused | Resumed]) -> None:
    stage, video = running(making.request(Pace.FAST, seconds=2), num_blocks=2)
    assert video.state == VideoState.CLOSING
    for what in ("no more blocks", "ended"):
        with pytest.raises(Conflict, match=what):
            stage.tell(event(video))
        stage.execute()
    assert video.end_reason == EndReason.COMPLETED
