"""What a video's story tells, whoever comes when; driven by the desk."""

from dataclasses import replace

import pytest

from engine.front.events import Cancelled, PromptAsked
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
from engine.request import EndReason, PromptAt
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
