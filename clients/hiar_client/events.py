"""What happens to a video, as typed events, out of server-sent events. No input or output here."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hiar_client import requests
from hiar_client.errors import HiarError, StreamCut
from hiar_client.exchange import Answer, Asking, Broken, Close, Read, Request, Steps, Wait
from hiar_client.objects import EndReason, Failure, read
from hiar_client.outage import Outage

NO_CONTENT = 204
"""It has ended, and all is told."""


@dataclass(frozen=True, kw_only=True)
class QueuedEvent:
    """It waits, at another place than before."""

    type: Literal["queued"]
    id: str
    queue_position: int


@dataclass(frozen=True, kw_only=True)
class StartedEvent:
    """It has left the queue."""

    type: Literal["started"]
    id: str


@dataclass(frozen=True, kw_only=True)
class PromptEvent:
    """It follows a prompt, or will."""

    type: Literal["prompt"]
    id: str
    block: int
    at_seconds: float
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A denoising step of a block. Times are since the video left the queue."""

    step: int
    worker: int
    began_seconds: float
    took_seconds: float


@dataclass(frozen=True, kw_only=True)
class BlockEvent:
    """A block is there."""

    type: Literal["block"]
    id: str
    block: int
    blocks_done: int
    seconds_done: float
    lead_seconds: float | None
    realtime_factor: float | None
    steps: tuple[Step, ...]
    """Those that were known when it was told."""


@dataclass(frozen=True, kw_only=True)
class PausedEvent:
    """It was paused."""

    type: Literal["paused"]
    id: str


@dataclass(frozen=True, kw_only=True)
class ResumedEvent:
    """It is to go on."""

    type: Literal["resumed"]
    id: str


@dataclass(frozen=True, kw_only=True)
class RecoveringEvent:
    """Its workers are lost."""

    type: Literal["recovering"]
    id: str


@dataclass(frozen=True, kw_only=True)
class RecoveredEvent:
    """It goes on with others, or after it slept."""

    type: Literal["recovered"]
    id: str
    block: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class EndedEvent:
    """Nothing more comes."""

    type: Literal["ended"]
    id: str
    end_reason: EndReason
    blocks_done: int
    seconds_done: float


@dataclass(frozen=True, kw_only=True)
class FailedEvent:
    """Nothing more comes, by an error."""

    type: Literal["failed"]
    id: str
    error: Failure
    blocks_done: int
    seconds_done: float


Event = (
    QueuedEvent
    | StartedEvent
    | PromptEvent
    | BlockEvent
    | PausedEvent
    | ResumedEvent
    | RecoveringEvent
    | RecoveredEvent
    | EndedEvent
    | FailedEvent
)
KINDS: dict[str, type[Event]] = {
    "queued": QueuedEvent,
    "started": StartedEvent,
    "prompt": PromptEvent,
    "block": BlockEvent,
    "paused": PausedEvent,
    "resumed": ResumedEvent,
    "recovering": RecoveringEvent,
    "recovered": RecoveredEvent,
    "ended": EndedEvent,
    "failed": FailedEvent,
}
"""By ``type``. Events of other types, which a newer server may tell of, are passed over."""


class EventReader:
    """The events of one video, over as many connections as it takes."""

    def __init__(self, asking: Asking, outage: Outage, video_id: str) -> None:
        self._asking, self._outage, self._video_id = asking, outage, video_id
        self._answer: Answer | None = None
        self._held = b""
        self._came = deque[Event]()
        self._last_number: int | None = None
        self._is_over = False

    def next(self) -> Steps[Event | None]:
        """The next event; None behind the last. Raises ``HiarError``."""
        while not self._came:
            if self._is_over:
                return None
            yield from self._receive()
        event = self._came.popleft()
        if isinstance(event, EndedEvent | FailedEvent):
            self._is_over = True
            yield from self.leave()
        return event

    def leave(self) -> Steps[None]:
        """Listen no more."""
        answer, self._answer = self._answer, None
        if answer is not None:
            yield Close(answer)

    def _receive(self) -> Steps[None]:
        if self._answer is None:
            self._attach((yield from self._asking.ask(self._request)))
            return
        cut = "the events ended without notice"
        try:
            data: bytes = yield Read(self._answer)
        except Broken as broken:
            cut = f"the connection broke: {broken}"
        else:
            if data:
                self._came.extend(self._events(data))
                return
        yield from self.leave()
        yield from self._resume(StreamCut(cut, retryable=True))

    @property
    def _request(self) -> Request:
        return requests.events(self._video_id, self._last_number)

    def _attach(self, answer: Answer) -> None:
        self._answer, self._held = answer, b""
        self._is_over = answer.status == NO_CONTENT

    def _resume(self, error: HiarError) -> Steps[None]:
        while True:
            yield Wait(self._outage.wait_s(error))
            try:
                self._attach((yield from self._asking.ask_once(self._request)))
            except HiarError as failed:
                error = failed
            else:
                return

    def _events(self, data: bytes) -> Iterator[Event]:
        *whole, self._held = (self._held + data).split(b"\n\n")
        for text in whole:
            fields = dict(line.partition(": ")[::2] for line in text.decode("utf-8").splitlines())
            if "retry" not in fields:  # with that each connection begins
                self._outage.over()
            if "id" in fields:
                self._last_number = int(fields["id"])
            told = json.loads(fields.get("data", "{}"))
            if told.get("type") in KINDS:
                yield read(KINDS[told["type"]], told)
