"""What happens to a video, as server-sent events: one JSON object each, numbered, so that a client that was cut goes on
behind the last one it has. Does not count as reading the video.
"""

import asyncio
import json
from typing import Any, assert_never

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

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
    Step,
)
from server.errors import INVALID_REQUEST, ApiError, row_of
from server.http.envelope import is_head
from server.settings import TransportLimits
from server.videos.arrivals import while_connected
from server.videos.readable import AnyVideo

EVENTS_TYPE = "text/event-stream"
_RETRY_MS = 1000
_BEGIN = f"retry: {_RETRY_MS}\n\n".encode("ascii")
_HEARTBEAT = b": still here\n\n"
_KINDS: dict[type[Happening], str] = {
    Queued: "queued",
    Started: "started",
    Made: "block",
    Prompted: "prompt",
    Paused: "paused",
    Resumed: "resumed",
    Recovering: "recovering",
    Recovered: "recovered",
    Ended: "ended",
}


def last_event(request: Request) -> int | None:
    """The number of the last event that the client has. Raises ``ApiError`` 400."""
    text = request.headers.get("last-event-id")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ApiError(INVALID_REQUEST, "Last-Event-ID: this must be the id of an event", param="Last-Event-ID")
    return int(text)


class EventStream(Response):
    """The events of a video behind one, until the last."""

    def __init__(self, video: AnyVideo, after: int, limits: TransportLimits) -> None:
        super().__init__()
        self._video, self._number, self._limits = video, after, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deliver."""
        headers = {"content-type": EVENTS_TYPE, "cache-control": "no-store", "x-accel-buffering": "no"}
        raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        if is_head(scope):
            await self._send(send, b"", more=False)
        else:
            await while_connected(receive, self._deliver(send))

    async def _deliver(self, send: Send) -> None:
        await self._send(send, _BEGIN)
        while True:
            if (happened := self._video.happened(self._number)) is not None:
                self._number, happening = happened
                await self._send(send, _event(self._video.id, self._number, happening))
            elif self._video.is_settled:
                break
            else:
                await self._wait(send)
        await self._send(send, b"", more=False)

    async def _wait(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._limits.keep_alive_s):
                await self._video.changed()
        except TimeoutError:
            await self._send(send, _HEARTBEAT)

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})


def _event(video_id: str, number: int, happening: Happening) -> bytes:
    kind = _KINDS[type(happening)]
    if isinstance(happening, Ended) and isinstance(happening.outcome, HiarError):
        kind = "failed"
    data = json.dumps({"type": kind, "id": video_id, **_fields(happening)})
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n".encode("ascii")


def _fields(happening: Happening) -> dict[str, Any]:
    match happening:
        case Queued(position):
            return {"queue_position": position}
        case Started() | Paused() | Resumed() | Recovering():
            return {}
        case Made():
            return _block(happening)
        case Prompted(block, at_s, text):
            return {"block": block, "at_seconds": at_s, "prompt": text}
        case Recovered(block, exact):
            return {"block": block, "exact": exact}
        case Ended():
            return _end(happening)
        case _:
            assert_never(happening)


def _block(made: Made) -> dict[str, Any]:
    return {
        "block": made.block,
        "blocks_done": made.block + 1,
        "seconds_done": round(made.seconds_done, 6),
        "lead_seconds": None if made.lead_s is None else round(made.lead_s, 3),
        "realtime_factor": None if made.realtime_factor is None else round(made.realtime_factor, 3),
        "steps": [_step(step) for step in made.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "worker": step.rank,
        "began_seconds": round(step.began_s, 4),
        "took_seconds": round(step.took_s, 4),
    }


def _end(ended: Ended) -> dict[str, Any]:
    outcome, done = ended.outcome, {"blocks_done": ended.blocks_done, "seconds_done": round(ended.seconds_done, 6)}
    if isinstance(outcome, HiarError):
        return {"error": {"code": row_of(outcome).code, "message": outcome.message}, **done}
    return {"end_reason": outcome.value, **done}
