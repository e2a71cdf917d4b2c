"""What is noted of a request while it is answered, for its line in the access log."""

import re
from dataclasses import dataclass

from starlette.types import Scope

_EXCHANGE_KEY = "hiar.exchange"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    video_id: str | None = None
    end_reason: str | None = None
    """Why a stream ended."""

    @property
    def plain_video_id(self) -> str | None:
        """The id, if it looks like one: what an address names may be anything, also the end of a line."""
        return self.video_id if _ID.fullmatch(self.video_id or "") else None


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
