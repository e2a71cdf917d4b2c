"""What the desk decides about readers, and how long a video lives; driven by events and a clock."""

from dataclasses import replace

import pytest

from engine.engine_config import Keep
from engine.errors import (
    BlockGone,
    BlockTooEarly,
    UnknownVideo,
)
from engine.front.events import (
    Cancelled,
    Forgotten,
    Joined,
    Looked,
    Polled,
    Stopped,
    TimePassed,
)
from engine.front.keeping import record_bytes
from engine.front.pacing import Cursor
from engine.front.readers import start_reading
from engine.front.video import Video, VideoState
from engine.messages import (
    Cancel,
)
from engine.request import EndReason, PromptAt
from tests.front import making
from tests.front.desk_stage import FAST, Stage

A_RECORD_BYTES = record_bytes(making.TINY.rollout)


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    made.serve()
    return made


def test_readers_side_by_side_and_late_ones_get_the_same_blocks(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    second = Cursor(first_block=0, next_block=0)
    stage.tell(Joined(video, second))
    seen: list[bytes] = []
    while len(seen) < 8:
        stage.execute(most=1)
        seen += stage.take(video, cursor=second)
    late = start_reading(video, 3, stage.config)
    stage.tell(Joined(video, late))
    assert stage.take(video, cursor=late) == seen[3:] == [f"a{block}".encode() for block in range(3, len(seen))]
    assert stage.take(video, cursor=None) == seen
    live = start_reading(video, None, stage.config)
    assert live.next_block == len(seen) - 1


def test_where_reading_may_begin() -> None:
    stage = Stage(keep=Keep(num_blocks=4))
    stage.serve()
    video = stage.open("a", replace(FAST, seconds=9.0))  # 144 frames: 13 blocks
    stage.embed()
    for _ in range(10):
        stage.execute(most=1)
        stage.take(video)
    first, made, total = video.log.first_block, video.log.next_block, video.progress.num_blocks
    assert first == made - 4 and total == 13
    with pytest.raises(BlockGone, match=f"block {first - 1} is no longer kept; the earliest is {first}"):
        start_reading(video, first - 1, stage.config)
    with pytest.raises(BlockTooEarly, match="ahead of block"):
        start_reading(video, made + 4, making.config(lead_target_s=2.0))
    assert start_reading(video, made + 3, stage.config).next_block == made + 3, "within the lead it waits"
    with pytest.raises(BlockGone, match="blocks 0 to 12; there will be no block 14"):
        start_reading(video, 14, stage.config)
    while video.state != VideoState.ENDED:
        stage.execute()
        stage.take(video)
    assert start_reading(video, 13, stage.config).next_block == 13, "its end can be read"
    with pytest.raises(BlockGone):
        start_reading(video, 14, stage.config)


def test_a_reader_that_falls_behind_does_not_hold_what_the_leading_one_has_taken() -> None:
    stage = Stage(keep=Keep(num_blocks=3))
    stage.serve()
    video = stage.open("a")
    stage.embed()
    slow = Cursor(first_block=0, next_block=0)
    stage.tell(Joined(video, slow))
    for _ in range(70):
        stage.execute(most=1)
        stage.take(video)
    assert video.progress.done > 60, "the one that stopped reading stops nobody"
    assert video.log.first_block == video.log.next_block - 3 > slow.next_block == 0


@pytest.mark.parametrize("linger_s", [0.0, 20.0, None])
def test_how_long_a_video_lives_when_its_last_reader_left(stage: Stage, linger_s: float | None) -> None:
    video = stage.open("a", making.request(), linger_s=linger_s)
    other = Cursor(first_block=0, next_block=0)
    stage.tell(Joined(video, other))
    stage.embed()
    stage.execute()
    stage.take(video)
    stage.leave(video)
    assert not video.has_outcome, "one still reads"
    stage.leave(video, other, EndReason.SLOW_CLIENT)
    stage.leave(video, other)  # a second time changes nothing
    if linger_s == 0:
        assert video.end_reason == EndReason.SLOW_CLIENT and isinstance(stage.sent[-2], Cancel)
        return
    left_at = stage.now
    while not video.has_outcome and stage.timer is not None and stage.now < left_at + 60:
        stage.execute()
        stage.pass_time()
    if linger_s is None:
        assert not video.has_outcome and video.progress.start_s(video.progress.done) > 55, "it goes on by the clock"
        return
    assert (video.end_reason, stage.now) == (EndReason.SLOW_CLIENT, left_at + 20)
    ahead_s = video.progress.start_s(video.progress.done) - video.progress.start_s(video.progress.taken)
    assert stage.config.lead_target_s <= ahead_s < stage.config.lead_target_s + 2, "it waited at its lead"


def test_one_that_is_read_again_in_time_lives_on(stage: Stage) -> None:
    video = stage.open("a", making.request(), linger_s=20.0)
    stage.embed()
    stage.execute()
    seen = stage.take(video)
    stage.leave(video)
    stage.execute()
    stage.now += 19
    stage.tell(TimePassed())
    stage.join(video, len(seen))
    for _ in range(40):
        stage.execute()
        seen += stage.take(video)
        stage.pass_time()
    assert not video.has_outcome and seen == [f"a{block}".encode() for block in range(len(seen))]


@pytest.mark.parametrize("when", ["queued", "running", "recovering"])
def test_a_cancelled_video_ends_at_a_block_boundary_and_stays_readable(stage: Stage, when: str) -> None:
    video = stage.open("a", FAST, linger_s=None)
    if when != "queued":
        stage.embed()
        stage.execute(most=3)
    if when == "recovering":
        stage.lose()
    issued, done = video.progress.issued, video.progress.done
    stage.tell(Cancelled(video))
    stage.execute()
    stage.tell(Cancelled(video))
    assert (video.state, video.end_reason) == (VideoState.ENDED, EndReason.CANCELLED)
    assert video.progress.done == (issued if when == "running" else done)
    assert not any(isinstance(ticket, Cancel) for ticket in stage.sent)
    assert stage.desk.video("a") is video and len(stage.take(video)) == video.progress.done


def test_a_stopped_video_ends_with_its_reason_at_once(stage: Stage) -> None:
    video = stage.open("a", linger_s=20.0)
    stage.embed()
    stage.tell(Stopped(video, EndReason.TIMEOUT))
    assert video.end_reason == EndReason.TIMEOUT and any(isinstance(ticket, Cancel) for ticket in stage.sent)
    stage.execute(most=len(stage.tickets))
    assert video.state == VideoState.ENDED


def test_a_forgotten_video_is_unknown_at_once_and_its_pages_are_freed(stage: Stage) -> None:
    video = stage.open("a", linger_s=None)
    stage.embed()
    stage.tell(Forgotten(video))
    with pytest.raises(UnknownVideo):
        stage.desk.video("a")
    assert stage.desk.videos == () and stage.desk.live == (video,)
    stage.execute(most=len(stage.tickets))
    assert video.state == VideoState.ENDED and stage.desk.live == () and stage.timer is None


def test_an_ended_video_answers_for_a_time(stage: Stage) -> None:
    ended = finished(stage, "a")
    assert stage.desk.video("a") is ended and stage.desk.videos == (ended,)
    status = stage.desk.status(ended, stage.now + 5)
    assert (status.end_reason, status.blocks_done, status.num_bytes) == (EndReason.COMPLETED, 2, 4)
    assert status.ended_at is not None and status.expires_at == status.ended_at + stage.config.keep_s
    assert stage.pass_time() == ended.ended_at + stage.config.keep_s
    with pytest.raises(UnknownVideo):
        stage.desk.video("a")
    assert stage.desk.videos == () and stage.timer is None


def test_ended_videos_have_a_bound_together_and_the_oldest_go_first() -> None:
    stage = Stage(kept_bytes=3 * (A_RECORD_BYTES + 100))
    stage.serve()
    for name in "abcde":
        finished(stage, name)
        stage.now += 1
    assert [video.id for video in stage.desk.videos] == ["c", "d", "e"]
    stage.tell(Forgotten(stage.desk.video("d")))
    finished(stage, "f")
    assert [video.id for video in stage.desk.videos] == ["c", "e", "f"]
    stage.pass_time()
    assert [video.id for video in stage.desk.videos] == ["e", "f"]


def test_long_prompts_count() -> None:
    stage = Stage(kept_bytes=3 * (A_RECORD_BYTES + 100))
    stage.serve()
    for name in "abc":
        finished(stage, name)
    finished(stage, "d", prompt="x" * (A_RECORD_BYTES // 4))
    assert [video.id for video in stage.desk.videos] == ["c", "d"]


def finished(stage: Stage, name: str, prompt: str = "x") -> Video:
    wanted = replace(FAST, seconds=1.0, prompts=(PromptAt(at_s=0, text=prompt),))
    video = stage.open(name, wanted, linger_s=None, is_read=False)
    stage.embed()
    stage.execute()
    assert video.state == VideoState.ENDED
    return video


def test_a_cut_video_ends_at_its_limit(stage: Stage) -> None:
    video = stage.open("a", replace(FAST, seconds=1.0, is_cut=True))
    stage.embed()
    stage.execute()
    assert video.end_reason == EndReason.LIMIT


def test_who_looks_sees_how_long_a_picture_stands_still(stage: Stage) -> None:
    video = stage.open("a", making.request())
    stage.embed()
    stage.execute(most=3)
    stage.take(video)
    leader = video.progress.leader
    assert leader is not None and leader.playing_since is not None
    due_at = leader.playing_since + video.progress.start_s(2)
    for stage.now in (due_at + 1.0, due_at + 4.5):
        stage.tell(Looked())
    assert (video.progress.num_stalls, video.progress.stalled_s) == (1, pytest.approx(4.5))
    assert stage.desk.status(video, due_at + 6.0).stalled_s == pytest.approx(6.0)


def test_who_polls_is_a_reader_until_a_while_after_the_last_time(stage: Stage) -> None:
    """A playlist and segments, asked for as a player does: the video goes on meanwhile and ends behind it."""
    video = stage.open("a", making.request(), is_read=False)
    stage.embed()
    for _ in range(40):
        stage.tell(Polled(video, None, 5.0))
        stage.execute()
        if video.polling is not None and video.polling.cursor.next_block < video.log.next_block:
            stage.tell(Polled(video, video.polling.cursor.next_block, 5.0))
        stage.now += 0.75
        stage.tell(TimePassed())
    assert len(video.readers) == 1 and not video.has_outcome
    assert video.progress.start_s(video.progress.done) == pytest.approx(30, abs=4), "it is paced by who polls"
    asked_at = stage.now
    stage.tell(Polled(video, None, 2.0))
    while not video.has_outcome:
        stage.execute()
        stage.pass_time()
    assert stage.now == asked_at - 0.75 + 5.0, "an earlier promise is kept"
    assert video.end_reason == EndReason.CLIENT_DISCONNECT and video.readers == []


def test_who_polls_goes_on_where_it_takes_up_again(stage: Stage) -> None:
    video = stage.open("a", making.request(), linger_s=None, is_read=False)
    stage.embed()
    stage.execute()
    stage.tell(Polled(video, None, 5.0))
    assert video.polling is not None
    cursor, newest = video.polling.cursor, video.log.next_block - 1
    stage.tell(Polled(video, newest - 1, 5.0))  # a player that begins further back
    assert cursor.next_block == newest and cursor.playing_since is None
    stage.tell(Polled(video, newest, 5.0))
    assert cursor.next_block == newest + 1 and cursor.playing_since is not None
    stage.now += 60
    stage.execute()
    stage.tell(TimePassed())
    assert video.polling is None and video.readers == [] and not video.has_outcome
    stage.tell(Stopped(video, EndReason.CANCELLED))
    stage.tell(Polled(video, None, 5.0))
    assert video.polling is None, "an ended one has no readers to count"
