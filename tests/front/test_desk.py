"""The desk, driven by events and a clock: no loop, no process, no waiting."""

from dataclasses import replace

import pytest

from engine.errors import (
    Conflict,
    EngineOutOfMemory,
    EngineUnavailable,
    Overloaded,
    PromptReplaced,
    VideoFailed,
    WorkerLost,
)
from engine.front.events import (
    Drained,
    PromptAsked,
    SetTimer,
    TimePassed,
    WorkerSaid,
)
from engine.front.recovery import MAX_VAIN_LOSSES
from engine.front.video import Video, VideoState
from engine.law.schedule import frames_in_block
from engine.messages import (
    BlockTicket,
    Cancel,
    OpenTicket,
    PromptEncoded,
    PromptFailed,
    PromptTicket,
    RestoreTicket,
    VideoBroken,
    VideoClosed,
)
from engine.request import EndReason, Pace, PromptAt
from tests.front import making
from tests.front.desk_stage import FAST, LOSS, Stage


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    made.serve()
    return made


def test_a_video_is_embedded_opened_made_and_closed(stage: Stage) -> None:
    video = stage.open("a", replace(FAST, seconds=3.0))
    assert video.state == VideoState.QUEUED and stage.sent == []
    stage.embed()
    assert video.state == VideoState.RUNNING
    while video.state != VideoState.ENDED:
        stage.execute()
        stage.take(video)
    num_blocks = video.progress.num_blocks
    assert num_blocks is not None and video.end_reason == EndReason.COMPLETED
    assert stage.kinds(video) == ["OpenTicket", *["BlockTicket"] * num_blocks, "CloseTicket"]
    shown = sum(ticket.num_frames for ticket in stage.sent if isinstance(ticket, BlockTicket))
    assert shown == 48 and stage.desk.live == ()
    assert stage.sent[-2].last and not stage.sent[-3].last


def test_only_as_many_blocks_are_in_a_chain_as_keep_it_busy(stage: Stage) -> None:
    stage.open("a")
    stage.embed()
    limit = stage.config.inflight_limit(1)
    assert [ticket.block for ticket in stage.sent[1:]] == list(range(limit))
    stage.execute(most=2)
    assert stage.sent[-1].block == limit, "one came back, so the next goes"


def test_a_video_nobody_reads_stops_and_goes_on_when_its_reader_does(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    stage.execute()
    made = video.progress.done
    waiting_s = video.progress.start_s(made)
    assert waiting_s >= stage.config.backlog_limit_s and stage.timer is None
    stage.take(video, 1 + stage.config.inflight_limit(1))
    stage.execute()
    assert video.progress.done > made


def test_a_realtime_video_waits_for_its_viewer_by_the_clock(stage: Stage) -> None:
    video = stage.open("a", making.request())
    stage.embed()
    stage.execute()
    lead_s = stage.config.lead_target_s
    assert video.progress.start_s(video.progress.done) >= lead_s
    assert stage.timer is None or stage.timer > stage.now
    stage.take(video)
    began_s, block_s = stage.now, frames_in_block(making.TINY.rollout, 1) / 16
    for _ in range(5):
        done = video.progress.done
        stage.pass_time()
        stage.execute()
        stage.take(video)
        assert video.progress.done == done + 1
    assert stage.now - began_s == pytest.approx(5 * block_s, abs=block_s)


@pytest.mark.parametrize("pace", Pace)
def test_no_newcomer_makes_a_running_realtime_video_late(pace: Pace) -> None:
    """Whatever its priority: the chain makes a block in 0.25 s, of which each video plays 0.75 s."""
    stage = Stage(max_videos=3)
    stage.serve()
    live = stage.open("live", making.request(size_px=64))
    stage.embed()
    newcomer = stage.open("new", making.request(pace, size_px=64, priority=9))
    stage.embed()
    for _ in range(400):
        if stage.tickets:
            is_block = isinstance(stage.tickets[0][1], BlockTicket)
            stage.now += 0.25 * is_block
            stage.execute(most=1)
        else:
            stage.pass_time()
        for video in (live, newcomer):
            while stage.ready(video) and (video is newcomer or _is_due(video, stage.now)):
                stage.take(video, 1)
    assert live.progress.taken > 60 and newcomer.progress.taken > 60
    assert (live.progress.num_stalls, live.progress.stalled_s) == (0, 0.0)


def _is_due(video: Video, now: float) -> bool:
    """A player takes what it must show, and the first blocks at once."""
    leader = video.progress.leader
    assert leader is not None
    if leader.playing_since is None:
        return True
    return leader.playing_since + video.progress.start_s(video.progress.taken) <= now + 1.0


def test_one_in_the_queue_starts_when_a_place_is_free() -> None:
    stage = Stage(max_videos=1, max_queue=2)
    stage.serve()
    first, second, third = (stage.open(name) for name in "abc")
    stage.embed()
    assert [video.state for video in (first, second, third)] == ["running", "queued", "queued"]
    assert [stage.desk.status(video, stage.now).queue_position for video in (first, second, third)] == [None, 1, 2]
    with pytest.raises(Overloaded):
        stage.open("d")
    assert len(stage.desk.live) == 3
    stage.leave(first)
    assert second.state == VideoState.QUEUED, "its pages are not free yet"
    stage.execute(most=len(stage.tickets))
    assert first.state == VideoState.ENDED and second.state == VideoState.RUNNING


def test_one_whose_prompt_is_not_embedded_yet_is_passed_over(stage: Stage) -> None:
    slow = stage.open("slow", replace(FAST, prompts=(PromptAt(at_s=0, text="slow"),)))
    quick = stage.open("quick", replace(FAST, prompts=(PromptAt(at_s=0, text="quick"),)))
    answer = PromptEncoded(request=stage.questions[1].request, embedding=making.embedding("quick"))
    stage.tell(WorkerSaid(0, answer))
    assert (slow.state, quick.state) == (VideoState.QUEUED, VideoState.RUNNING)


@pytest.mark.parametrize("when", ["queued", "running", "closing", "recovering"])
def test_a_viewer_that_leaves_frees_its_place(stage: Stage, when: str) -> None:
    video = stage.open("a", replace(FAST, seconds=3.0) if when == "closing" else FAST)
    if when != "queued":
        stage.embed()
    if when == "closing":
        while video.state != VideoState.CLOSING:
            stage.execute(most=1)
            stage.take(video)
    if when == "recovering":
        stage.lose()
    assert video.state == when
    stage.leave(video)
    assert video.end_reason == EndReason.CLIENT_DISCONNECT
    cancelled = [ticket for ticket in stage.sent if isinstance(ticket, Cancel)]
    assert len(cancelled) == (when in {"running", "closing"})
    stage.execute(most=len(stage.tickets))
    assert video.state == VideoState.ENDED and stage.desk.live == ()
    stage.leave(video)
    assert "a" in stage.woken


def test_a_broken_video_ends_typed_and_its_last_blocks_are_dropped(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    stage.execute(most=2)
    stage.tell(WorkerSaid(0, VideoBroken(video="a", code="engine_oom", message="no memory left")))
    ready = stage.ready(video)
    stage.execute()
    assert isinstance(video.failure, VideoFailed) and video.failure.code == "engine_oom"
    assert video.state == VideoState.ENDED and stage.ready(video) == ready


def test_a_changed_prompt_rides_in_front_of_the_next_block_without_a_ticket(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    issued = video.progress.issued
    stage.tell(PromptAsked(video, "another", 7))
    assert stage.answers == {} and stage.questions[0].text == "another"
    stage.embed()
    assert stage.answers == {7: issued}
    stage.execute(most=3)
    change = next(index for index, ticket in enumerate(stage.sent) if isinstance(ticket, PromptTicket))
    assert stage.sent[change].embedding == making.embedding("another")
    assert stage.sent[change + 1].block == issued
    stage.tell(PromptAsked(video, "another", 8))
    assert 8 in stage.answers and not stage.questions, "it is remembered"


def test_a_prompt_that_comes_before_the_first_is_embedded_holds_from_the_first_block(stage: Stage) -> None:
    video = stage.open("a")
    stage.tell(PromptAsked(video, "early", 1))
    answers = [PromptEncoded(request=q.request, embedding=making.embedding(q.text)) for q in stage.questions]
    stage.questions.clear()
    for answer in reversed(answers):
        stage.tell(WorkerSaid(0, answer))
    assert stage.answers == {1: 0}
    [opening] = [ticket for ticket in stage.sent if isinstance(ticket, OpenTicket)]
    assert opening.embedding == making.embedding("early")


def test_of_many_changed_prompts_one_is_embedded_at_a_time_and_the_newest_waits(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    for number in range(5):
        stage.tell(PromptAsked(video, f"prompt {number}", number))
    assert [question.text for question in stage.questions] == ["prompt 0"]
    assert [number for number, answer in stage.answers.items() if isinstance(answer, PromptReplaced)] == [1, 2, 3]
    stage.embed()
    assert stage.answers[0] == stage.answers[4] == video.progress.issued
    assert video.log.prompt_at(video.progress.issued) == making.embedding("prompt 4")
    stage.tell(PromptAsked(video, "prompt 5", 5))
    assert [question.text for question in stage.questions] == ["prompt 5"]


def test_a_video_whose_prompt_cannot_be_embedded_ends_typed_and_the_other_starts(stage: Stage) -> None:
    bad, good = stage.open("bad"), stage.open("good")
    question = stage.questions.pop(0)
    stage.tell(WorkerSaid(0, PromptFailed(request=question.request, code="engine_oom", message="no memory")))
    assert bad.state is VideoState.ENDED and isinstance(bad.failure, EngineOutOfMemory)
    stage.embed()
    assert good.state is VideoState.RUNNING and stage.desk.live == (good,)


def test_a_change_that_cannot_be_embedded_is_refused_and_the_video_goes_on_with_the_next(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    stage.tell(PromptAsked(video, "bad", 1))
    stage.tell(PromptAsked(video, "good", 2))
    question = stage.questions.pop(0)
    stage.tell(WorkerSaid(0, PromptFailed(request=question.request, code="engine_error", message="a bug")))
    assert type(stage.answers[1]) is VideoFailed and video.state is VideoState.RUNNING
    stage.embed()
    assert stage.answers[2] == video.progress.issued


def test_one_that_ends_takes_no_more_prompts(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    stage.leave(video)
    stage.tell(PromptAsked(video, "late", 1))
    assert isinstance(stage.answers[1], Conflict), "who asks after the end need not wait for a worker"


def test_draining_ends_running_videos_at_a_block_and_refuses_those_that_wait() -> None:
    stage = Stage(max_videos=1, max_queue=2)
    stage.serve()
    running, queued = stage.open("a"), stage.open("b")
    stage.embed()
    refusal = EngineUnavailable("the server is shutting down", 5.0, "draining")
    stage.tell(Drained(refusal))
    assert queued.failure is refusal and queued.state == VideoState.ENDED
    issued = running.progress.issued
    stage.execute()
    assert (running.end_reason, running.state) == (EndReason.DRAIN, VideoState.ENDED)
    assert running.progress.done == issued, "blocks that had tickets were made"


def test_a_lost_video_is_made_again_and_its_reader_sees_every_block_once(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    stage.execute(most=4)
    seen = stage.take(video)
    stage.lose("a")
    assert video.state == VideoState.RECOVERING
    assert stage.timer == stage.now + stage.config.recovery_grace_s
    stage.serve()
    [opening] = [ticket for ticket in stage.sent if isinstance(ticket, OpenTicket)][1:]
    assert (opening.first_block, video.progress.issued > 0) == (len(seen), True)
    while len(seen) < 12:
        stage.execute()
        seen += stage.take(video)
    assert seen == [f"a{block}".encode() for block in range(len(seen))]
    [recovery] = video.recoveries
    assert recovery.exact and not any(isinstance(ticket, RestoreTicket) for ticket in stage.sent)


def test_without_new_workers_a_lost_video_ends_when_its_grace_is_over(stage: Stage) -> None:
    video = stage.open("a")
    stage.embed()
    lost_at = stage.now
    stage.lose()
    assert stage.pass_time() == lost_at + stage.config.recovery_grace_s
    assert isinstance(video.failure, WorkerLost) and video.state == VideoState.ENDED


def test_a_video_over_which_workers_die_ends_and_the_other_goes_on(stage: Stage) -> None:
    bad, good = stage.open("bad"), stage.open("good")
    stage.embed()
    for _ in range(MAX_VAIN_LOSSES + 1):
        assert bad.state == VideoState.RUNNING
        stage.lose("bad")
        stage.serve()
    assert bad.failure is LOSS and good.state == VideoState.RUNNING


def test_when_no_group_will_come_everything_ends_typed(stage: Stage) -> None:
    running, waiting = stage.open("a"), None
    stage.embed()
    waiting = stage.open("b", replace(FAST, prompts=(PromptAt(at_s=0, text="never embedded"),)))
    stage.tell(PromptAsked(running, "never either", 3))
    stage.lose(for_good=True)
    assert running.failure is waiting.failure is LOSS
    assert stage.answers == {3: LOSS} and stage.desk.live == ()
    assert stage.timer == stage.now + stage.config.keep_s, "what ended is forgotten then"


def test_open_questions_are_put_to_the_next_workers(stage: Stage) -> None:
    video = stage.open("a")
    [question] = stage.questions
    stage.questions.clear()
    stage.lose()
    stage.serve()
    assert stage.questions == [question]
    stage.embed()
    assert video.state == VideoState.RUNNING


def test_words_about_a_video_that_ended_are_dropped(stage: Stage) -> None:
    stage.tell(WorkerSaid(0, VideoClosed(video="gone", pages_used=0)))
    stage.tell(WorkerSaid(0, PromptEncoded(request=99, embedding=making.embedding("x"))))
    assert stage.sent == [] and stage.timer is None


def test_a_refused_event_leaves_nothing_behind() -> None:
    stage = Stage(max_queue=0)
    with pytest.raises(Overloaded):
        stage.open("a")
    assert stage.desk.live == stage.desk.videos == ()
    assert stage.desk.handle(TimePassed(), stage.now) == [SetTimer(None)]
