"""What happens to a video, as typed events, out of server-sent events. No input or output here."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from hiar_client import requests
from hiar_client.errors import HiarError, StreamCut
from hiar_client.exchange import Answer, Asking, Broken, Close, Read, Steps, Wait, pause_s
from hiar_client.objects import EndReason, Failure, read


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
class BlockEvent:
    """A block is there."""

    type: Literal["block"]
    id: str
    block: int
    blocks_done: int
    seconds_done: float
    lead_seconds: float | None
    realtime_factor: float | None


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

    def __init__(
        self, asking: Asking, video_id: str, give_up_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asking, self._video_id = asking, video_id
        self._give_up_s, self._clock = give_up_s, clock
        self._answer: Answer | None = None
        self._held = b""
        self._came = deque[Event]()
        self._last_number: int | None = None
        self._is_over = False
        self._lost_at_s: float | None = None
        self._num_failed = 0

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
            yield from self._connect()
            return
        try:
            data: bytes = yield Read(self._answer)
        except Broken as broken:
            yield from self._resume(StreamCut(f"the connection broke: {broken}", retryable=True))
            return
        if data:
            self._lost_at_s, self._num_failed = None, 0
            self._came.extend(self._events(data))
        else:
            yield from self._resume(StreamCut("the events ended without notice", retryable=True))

    def _connect(self) -> Steps[None]:
        asked = requests.events(self._video_id, self._last_number)
        ask = self._asking.ask if self._last_number is None else self._asking.ask_once
        self._answer, self._held = (yield from ask(asked)), b""
        self._is_over = self._answer.status == 204

    def _resume(self, error: HiarError) -> Steps[None]:
        yield from self.leave()
        now_s = self._clock()
        self._lost_at_s = now_s if self._lost_at_s is None else self._lost_at_s
        while self._answer is None:
            wait_s = pause_s(self._asking.retries, self._num_failed, error.retry_after_s) if self._num_failed else 0.0
            self._num_failed += 1
            if not error.retryable or self._clock() + wait_s > self._lost_at_s + self._give_up_s:
                raise error
            yield Wait(wait_s)
            try:
                yield from self._connect()
            except HiarError as failed:
                error = failed

    def _events(self, data: bytes) -> Iterator[Event]:
        *whole, self._held = (self._held + data).split(b"\n\n")
        for text in whole:
            fields = dict(line.partition(": ")[::2] for line in text.decode("utf-8").splitlines())
            if "id" in fields:
                self._last_number = int(fields["id"])
            told = json.loads(fields.get("data", "{}"))
            if told.get("type") in KINDS:
                yield read(KINDS[told["type"]], told)
