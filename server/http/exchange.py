"""What is noted of a request while it is answered, for its line in the access log."""

from dataclasses import dataclass

from starlette.types import Scope

_EXCHANGE_KEY = "hiar.exchange"


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    video_id: str | None = None
    end_reason: str | None = None
    """Why a stream ended."""


def begin_exchange(scope: Scope, request_id: str) -> None:
    """A request came."""
    scope[_EXCHANGE_KEY] = Exchange(request_id)


def exchange_of(scope: Scope) -> Exchange:
    """What is known of a request so far."""
    exchange = scope[_EXCHANGE_KEY]
    assert isinstance(exchange, Exchange)
    return exchange


def note_video(scope: Scope, video_id: str) -> None:
    """The request made this video, or is about it. An id from an address may be any text."""
    exchange_of(scope).video_id = video_id


def note_end(scope: Scope, reason: str) -> None:
    """The answer's stream is over."""
    exchange_of(scope).end_reason = reason
