"""Videos that start from a picture: what the desk asks of workers before, and what losses mean to that."""

from dataclasses import replace

import pytest

from engine.errors import EngineOutOfMemory, WorkerLost
from engine.front.events import Cancelled, Paused, Resumed, WorkerSaid
from engine.front.pictures import MAX_VAIN_LOSSES
from engine.front.video import VideoState
from engine.messages import BlockTicket, EncodePixels, EncodePrompt, PixelsEncoded, PixelsFailed
from engine.request import Pixels
from tests.front import making
from tests.front.desk_stage import FAST, Stage

PICTURE = Pixels(num_frames=1, width_px=2, height_px=1, data=bytes(6))
GIVEN = (making.embedding("given"),)
FROM_PICTURE = replace(FAST, seconds=4.0, start=PICTURE)


@pytest.fixture
def stage() -> Stage:
    serving = Stage()
    serving.serve()
    return serving


def asked(stage: Stage) -> EncodePixels:
    """The one question that is open."""
    (question,) = stage.questions
    stage.questions.clear()
    assert isinstance(question, EncodePixels)
    return question


def test_the_picture_is_encoded_first_and_is_the_first_block(stage: Stage) -> None:
    video = stage.open("a", FROM_PICTURE)
    question = asked(stage)
    assert question.pixels == PICTURE
    stage.tell(WorkerSaid(0, PixelsEncoded(request=question.request, blocks=GIVEN)))
    assert [type(one) for one in stage.questions] == [EncodePrompt] and not stage.sent
    stage.embed()
    stage.execute()
    blocks = [ticket for ticket in stage.sent if isinstance(ticket, BlockTicket)]
    assert [ticket.given for ticket in blocks][:2] == [GIVEN[0], None]
    assert [ticket.block for ticket in blocks if ticket.opening] == [1]
    assert video.request.start is None and video.request.initial == GIVEN, "pixels were kept"


def test_a_failure_ends_that_video_typed_and_no_other(stage: Stage) -> None:
    video, other = stage.open("a", FROM_PICTURE), None
    question = asked(stage)
    other = stage.open("b")
    stage.tell(WorkerSaid(0, PixelsFailed(request=question.request, code="engine_oom", message="no memory")))
    assert isinstance(video.failure, EngineOutOfMemory) and video.state == VideoState.ENDED
    stage.embed()
    assert other.state == VideoState.RUNNING


def test_a_question_outlives_a_lost_worker(stage: Stage) -> None:
    video = stage.open("a", FROM_PICTURE)
    first = asked(stage)
    stage.lose()
    assert video.state == VideoState.QUEUED and not stage.questions
    stage.serve()
    assert asked(stage) == first
    stage.tell(WorkerSaid(0, PixelsEncoded(request=first.request, blocks=GIVEN)))
    stage.embed()
    assert video.state == VideoState.RUNNING


def test_a_picture_over_which_worker_after_worker_dies_ends_its_video(stage: Stage) -> None:
    video, behind = stage.open("a", FROM_PICTURE), stage.open("b", FROM_PICTURE)
    for _ in range(MAX_VAIN_LOSSES):
        stage.lose()
        stage.serve()
    assert video.state == VideoState.QUEUED
    stage.lose()
    assert isinstance(video.failure, WorkerLost) and behind.state == VideoState.QUEUED


@pytest.mark.parametrize(
    "late", [PixelsEncoded(request=0, blocks=GIVEN), PixelsFailed(request=0, code="x", message="")]
)
def test_of_a_video_that_ended_meanwhile_no_pixels_are_left(stage: Stage, late: PixelsEncoded | PixelsFailed) -> None:
    video = stage.open("a", FROM_PICTURE)
    stage.tell(Cancelled(video))
    assert video.state == VideoState.ENDED
    assert video.request.start is not None and video.request.start.data == b""
    stage.tell(WorkerSaid(0, late))
    stage.lose()
    stage.questions.clear()
    stage.serve()
    assert not stage.questions and video.failure is None


def test_a_lost_video_is_made_again_from_the_same_latents(stage: Stage) -> None:
    stage.open("a", FROM_PICTURE)
    stage.tell(WorkerSaid(0, PixelsEncoded(request=asked(stage).request, blocks=GIVEN)))
    stage.embed()
    stage.lose()
    stage.sent.clear()
    stage.serve()
    first = next(ticket for ticket in stage.sent if isinstance(ticket, BlockTicket))
    assert (first.block, first.given) == (0, GIVEN[0]) and not stage.questions


def test_a_video_that_is_paused_meanwhile_starts_from_its_picture_later(stage: Stage) -> None:
    video = stage.open("a", FROM_PICTURE)
    question = asked(stage)
    stage.tell(Paused(video))
    stage.tell(WorkerSaid(0, PixelsEncoded(request=question.request, blocks=GIVEN)))
    stage.embed()
    assert video.state == VideoState.SLEEPING and not stage.sent
    stage.tell(Resumed(video))
    first = next(ticket for ticket in stage.sent if isinstance(ticket, BlockTicket))
    assert (first.block, first.given) == (0, GIVEN[0])
