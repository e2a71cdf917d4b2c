"""Questions to a server and how often one is asked. No input or output here.

What has to be sent, read and waited for is yielded as steps; ``wire`` and ``async_wire`` take them.
"""

import random
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hiar_client.errors import HiarError, ServerError, Unreachable
from hiar_client.told_errors import error_of_answer

READ_TIMEOUT_S = 180.0
"""Longer than the server waits for a video's first block."""
SILENCE_TIMEOUT_S = 45.0
"""A stream that brings nothing for so long is dead: the server sends something every 10 s."""
_REDIRECTS_MAX = 5
IDEMPOTENCY_KEY = "Idempotency-Key"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question."""

    method: str
    path: str
    """Or a whole address, behind a redirect."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    is_repeatable: bool = True
    """Whether asking twice does what asking once does."""
    is_stream: bool = False
    """Whether the answer is read piece by piece."""
    read_timeout_s: float = READ_TIMEOUT_S

    def renewed(self) -> "Request":
        """The same as another request, where a key tells the server which are one."""
        if IDEMPOTENCY_KEY not in self.headers:
            return self
        return replace(self, headers={**self.headers, IDEMPOTENCY_KEY: new_key()})


def new_key() -> str:
    """One that nobody else has."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status and headers, with names in lower case; and all of the body, unless it is a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    source: Any = None
    """Where the wire reads a stream from."""

    @property
    def is_success(self) -> bool:
        """Whether it brings what was asked for."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Send:
    """Ask; its result is an ``Answer``. Raises ``Broken``."""

    request: Request


@dataclass(frozen=True)
class Read:
    """Read the next piece of a stream; its result is bytes, none at the end. Raises ``Broken``."""

    answer: Answer


@dataclass(frozen=True)
class Close:
    """Read no more of a stream."""

    answer: Answer


@dataclass(frozen=True)
class Wait:
    """Do nothing for a while."""

    seconds: float


Step = Send | Read | Close | Wait
Steps = Generator[Step, Any, _T]


class Broken(Exception):
    """The connection broke, or there was none."""

    def __init__(self, message: str, *, is_refused: bool = False) -> None:
        super().__init__(message)
        self.is_refused = is_refused
        """Nothing was sent: there was no connection."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a question is asked again that may be asked twice, where asking again can help."""

    attempts: int = 4
    """In all; 1 never asks again."""
    total_s: float = 60.0
    """No wait ends later than this behind the first attempt."""
    first_wait_s: float = 0.25
    """Where the server does not say how long: doubled each time, up to ``longest_wait_s``."""
    longest_wait_s: float = 4.0


DEFAULT_RETRIES = Retries()


class Patience:
    """What is left of ``Retries`` for one question."""

    def __init__(self, retries: Retries, clock: Callable[[], float]) -> None:
        self._retries, self._clock = retries, clock
        self._ends_at_s = clock() + retries.total_s
        self._num_failed = 0

    def wait_s(self, error: HiarError) -> float:
        """How long to wait before asking again. Raises the error where it is not to be asked again."""
        self._num_failed += 1
        wait_s = pause_s(self._retries, self._num_failed, error.retry_after_s)
        if not error.retryable or self._num_failed >= self._retries.attempts:
            raise error
        if self._clock() + wait_s > self._ends_at_s:
            raise error
        return wait_s


def pause_s(retries: Retries, num_failed: int, retry_after_s: float | None) -> float:
    """At least what the server said, and some more: those who were refused together do not come back together."""
    if retry_after_s is not None:
        return retry_after_s * random.uniform(1.0, 1.25)
    longest_s = min(retries.longest_wait_s, retries.first_wait_s * 2.0 ** min(num_failed - 1, 30))
    return longest_s * random.uniform(0.5, 1.0)


class Asking:
    """Asks one server."""

    def __init__(self, url: str, retries: Retries, clock: Callable[[], float] = time.monotonic) -> None:
        self.url, self.retries, self._clock = url, retries, clock
        self._was_heard = False
        """Where nothing ever answered there is no server to wait for."""

    def ask(self, request: Request) -> Steps[Answer]:
        """Ask until there is an answer that is a success. Raises ``HiarError``."""
        patience = Patience(self.retries, self._clock)
        while True:
            try:
                return (yield from self.ask_once(request))
            except HiarError as error:
                if not request.is_repeatable:
                    raise
                yield Wait(patience.wait_s(error))
                if isinstance(error, ServerError):  # not lost, refused: by its key it would be refused for good
                    request = request.renewed()

    def ask_once(self, request: Request) -> Steps[Answer]:
        """The same without a second attempt, wherever the server says that the answer is."""
        for _ in range(_REDIRECTS_MAX):
            try:
                answer: Answer = yield Send(request)
            except Broken as broken:
                raise self._unreachable(broken) from broken
            self._was_heard = True
            if answer.is_success:
                return answer
            if answer.status not in {307, 308} or "location" not in answer.headers:
                break
            request = replace(request, path=answer.headers["location"])
        raise error_of_answer(answer.status, answer.headers, answer.body)

    def _unreachable(self, broken: Broken) -> Unreachable:
        if broken.is_refused:
            message = f"no server answers at {self.url}; start one with 'hiar-server' or give another --url"
            return Unreachable(message, retryable=self._was_heard)
        return Unreachable(f"the connection to {self.url} broke before an answer came: {broken}", retryable=True)
