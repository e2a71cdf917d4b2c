"""What a video's story tells, whoever comes when; driven by the desk."""

from dataclasses import replace

import pytest

from engine.front.events import Cancelled, PromptAsked, WorkerSaid
from engine.front.steps import MOST_BLOCKS, Step, Steps
from engine.front.story import (
    KEPT,
    Ended,
    Happening,
    Made,
    Prompted,
    Queued,
    Recovered,
    Recovering,
    Started,
    Story,
)
from engine.front.video import Video
from engine.messages import Beat
from engine.request import EndReason, PromptAt
from engine.trace import Phase, Rests, Span
from tests.front.desk_stage import FAST, LOSS, Stage


def told(video: Video, after: int = 0) -> list[Happening]:
    found = []
    while (happened := video.story.after(after)) is not None:
        assert happened[0] == after + 1, "the numbers have no gap"
        after = happened[0]
        found.append(happened[1])
    return found


def test_a_video_from_the_queue_to_its_end() -> None:
    stage = Stage(max_videos=1)
    stage.serve()
    first = stage.open("a", replace(FAST, seconds=1.0))
    second, third = stage.open("b", linger_s=None), stage.open("c", linger_s=None)
    assert [told(video) for video in (first, second, third)] == [[Queued(1)], [Queued(2)], [Queued(3)]]
    stage.woken.clear()
    stage.embed()
    assert told(first) == [Queued(1), Prompted(0, 0.0, "x"), Started()]
    assert told(second)[1:] == [Queued(1), Prompted(0, 0.0, "x")] and {"a", "b", "c"} <= set(stage.woken)
    while not first.has_outcome:
        stage.execute(most=1)
    blocks = told(first, 3)
    assert [block.block for block in blocks[:-1] if isinstance(block, Made)] == [0, 1]
    assert isinstance(blocks[1], Made) and blocks[1].seconds_done == 1.0
    assert blocks[-1] == Ended(EndReason.COMPLETED, 2, 1.0)
    while Started() not in told(second):
        stage.woken.clear()
        stage.execute(most=1)
    assert "b" in stage.woken
    assert told(third)[-1] == Queued(1)
    stage.tell(Cancelled(third))
    assert told(third)[-1] == Ended(EndReason.CANCELLED, 0, 0.0)


def test_prompts_are_told_when_their_block_is_known() -> None:
    stage = Stage()
    stage.serve()
    scheduled = (PromptAt(at_s=0, text="x"), PromptAt(at_s=1.5, text="y"))
    video = stage.open("a", replace(FAST, prompts=scheduled), linger_s=None)
    stage.embed()
    stage.execute(most=4)
    stage.tell(PromptAsked(video, "z", 1))
    stage.woken.clear()
    stage.embed()
    block = stage.answers[1]
    assert isinstance(block, int) and stage.woken == ["a"]
    prompts = [one for one in told(video) if isinstance(one, Prompted)]
    assert prompts == [
        Prompted(0, 0.0, "x"),
        Prompted(3, video.progress.start_s(3), "y"),
        Prompted(block, video.progress.start_s(block), "z"),
    ]


def test_a_loss_and_the_way_back() -> None:
    stage = Stage()
    stage.serve()
    video = stage.open("a", linger_s=None)
    stage.embed()
    stage.execute(most=3)
    done, number = video.progress.done, len(told(video))
    stage.lose()
    assert told(video, number) == [Recovering()]
    stage.serve()
    assert told(video, number + 1) == [Recovered(done, exact=True)]
    stage.lose(for_good=True)
    assert told(video, number + 2) == [Ended(LOSS, done, video.seconds_done)]


def worked(stage: Stage, block: int, number: int, began_s: float, phase: Phase = Phase.DENOISE) -> None:
    """A worker tells of a tenth of a second, begun so long after the stage's first moment."""
    at_s = 1000.0 + began_s
    told = (
        Span(phase=phase, rank=1, stage=number, video="a", block=block, began_s=at_s, ended_s=at_s + 0.125),
        Span(phase=phase, rank=1, stage=number, video="of nobody", block=block, began_s=at_s, ended_s=at_s),
    )
    stage.tell(WorkerSaid(1, Beat(tickets_passed=0, pages_used=0, spans=told, rests=Rests())))


def steps_of(video: Video) -> dict[int, list[tuple[int, int, float, float]]]:
    blocks = [one for one in told(video) if isinstance(one, Made)]
    return {made.block: [(step.number, step.rank, step.began_s, step.took_s) for step in made.steps] for made in blocks}


def make_blocks(stage: Stage, video: Video, num_blocks: int) -> None:
    while video.progress.done < num_blocks:
        stage.execute(most=1)


def test_a_block_is_told_with_its_steps_as_far_as_they_are_known() -> None:
    stage = Stage()
    stage.serve()
    video = stage.open("a", linger_s=None)
    stage.now += 10
    stage.embed()
    worked(stage, 0, 1, 10.5)
    worked(stage, 0, 0, 10.25)
    worked(stage, 0, 2, 10.75, Phase.CACHE)
    worked(stage, 1, 0, 11.0)
    make_blocks(stage, video, 1)
    worked(stage, 0, 3, 11.5)  # behind the block: too late
    make_blocks(stage, video, 3)
    assert steps_of(video) == {0: [(0, 1, 0.25, 0.125), (1, 1, 0.5, 0.125)], 1: [(0, 1, 1.0, 0.125)], 2: []}
    worked(stage, 3, 0, 12.0)
    worked(stage, 3, 1, 12.5)
    stage.lose()
    stage.serve()
    worked(stage, 2, 0, 20.0)  # made again, and told of already
    worked(stage, 3, 0, 20.5)
    make_blocks(stage, video, 4)
    assert not video.steps.take(2), "what is told of is not kept"
    assert steps_of(video)[2] == [] and steps_of(video)[3] == [(0, 1, 10.5, 0.125)], "not those of the lost workers"


def test_steps_of_blocks_that_are_never_told_of_do_not_pile_up() -> None:
    steps = Steps()
    for block in range(3 * MOST_BLOCKS):
        steps.add(block, Step(0, 0, 0.0, 0.0))
    kept = [block for block in range(3 * MOST_BLOCKS) if steps.take(block)]
    assert kept == list(range(2 * MOST_BLOCKS, 3 * MOST_BLOCKS))


@pytest.mark.parametrize("last", [0, 7, KEPT, 3 * KEPT - 1])
def test_the_newest_are_kept_and_a_strange_number_begins_anew(last: int) -> None:
    story = Story()
    assert story.after(0) is None and story.after(9) is None
    for position in range(3 * KEPT):
        story.tell(Queued(position))
    expected = max(last, 2 * KEPT) + 1
    assert story.after(last) == (expected, Queued(expected - 1))
    assert story.after(3 * KEPT) is None
    assert story.after(3 * KEPT + 5) == (2 * KEPT + 1, Queued(2 * KEPT))
