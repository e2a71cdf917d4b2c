"""A video as spans: one as long as it is made, and below it one each for the queue, the first block and recoveries."""

from typing import assert_never

from opentelemetry.trace import Span, Status, StatusCode

from engine import (
    Ended,
    Happening,
    HiarError,
    Made,
    Paused,
    Prompted,
    Queued,
    Recovered,
    Recovering,
    Resumed,
    Started,
    VideoHandle,
)
from server.errors import row_of
from server.traces.spans import Spans


class VideoTrace:
    """Follows one video. No prompt is told of, only where it begins."""

    def __init__(self, spans: Spans, video: VideoHandle) -> None:
        self._spans, self._video = spans, video
        self._span = spans.start("video")
        self._span.set_attribute("hiar.video_id", video.id)
        self._phase: Span | None = None
        self._enter("queued")

    async def follow(self) -> None:
        """Tell what happens to the video, until it has ended."""
        number = 0
        try:
            while True:
                if (happened := self._video.happened(number)) is not None:
                    number, happening = happened
                    self._tell(happening)
                elif self._video.is_ended:
                    break
                else:
                    await self._video.changed()
        finally:
            self._enter(None)
            self._spans.end(self._span)

    def _tell(self, happening: Happening) -> None:
        match happening:
            case Queued() | Prompted() | Paused() | Resumed():
                self._note(happening)
            case Started():
                self._enter("first block")
            case Made(block):
                if block == 0:
                    self._enter(None)
                self._spans.tell(self._span, "block", {"hiar.block": block})
            case Recovering():
                self._enter("recovery")
            case Recovered(block, exact):
                assert self._phase is not None, "it recovered from nothing"
                self._phase.set_attributes({"hiar.block": block, "hiar.exact": exact})
                self._enter(None)
            case Ended():
                self._end(happening)
            case _:
                assert_never(happening)

    def _note(self, happening: Queued | Prompted | Paused | Resumed) -> None:
        """What begins and ends no phase."""
        match happening:
            case Queued(position):
                self._spans.tell(self._span, "queued", {"hiar.queue_position": position})
            case Prompted(block):
                self._spans.tell(self._span, "prompt", {"hiar.block": block})
            case Paused():
                self._spans.tell(self._span, "paused", {})
            case Resumed():
                self._spans.tell(self._span, "resumed", {})

    def _end(self, ended: Ended) -> None:
        outcome = ended.outcome
        self._span.set_attribute("hiar.blocks", ended.blocks_done)
        if isinstance(outcome, HiarError):
            self._span.set_attribute("error.type", row_of(outcome).code)
            self._span.set_status(Status(StatusCode.ERROR))
        else:
            self._span.set_attribute("hiar.end_reason", outcome.value)

    def _enter(self, name: str | None) -> None:
        """A phase is over, and another begins."""
        if self._phase is not None:
            self._spans.end(self._phase)
        self._phase = None if name is None else self._spans.start(name, self._span)
