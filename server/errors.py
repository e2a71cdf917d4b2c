"""Every error a caller can meet, one row each: answers, error boxes and metrics read it here and nowhere else.

An error is an engine's exception (``HiarError``), whose row is found by its type and code, or an ``ApiError``, which
names its row. Errors of a start (``engine.errors.START_FAILURES``) come before the first request and have no row.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from starlette.responses import Response

from engine import (
    BlockGone,
    BlockTooEarly,
    Conflict,
    CorruptLatents,
    EncoderFailed,
    EndReason,
    EngineOutOfMemory,
    EngineState,
    EngineUnavailable,
    HiarError,
    Overloaded,
    PromptReplaced,
    Refused,
    RequestError,
    UnknownVideo,
    VideoFailed,
    WorkerLost,
)

ERROR_KEY = "hiar.error"
"""Where the scope of a request holds the ``ApiError`` it was answered with."""


class Rejection(StrEnum):
    """Why a request for a video was refused, as metrics call it."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    CLIENT_LIMIT = "client_limit"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DRAINING = "draining"
    NOT_READY = "not_ready"
    VALIDATION = "validation"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"


class Finish(StrEnum):
    """How a video ended, as metrics call it."""

    COMPLETED = "completed"
    LIMIT = "limit"
    DRAIN = "drain"
    CLIENT_DISCONNECT = "client_disconnect"
    CLIENT_CANCEL = "client_cancel"
    SLOW_CLIENT = "slow_client"
    PAUSE_LIMIT = "pause_limit"
    TIMEOUT = "timeout"
    ENGINE_ERROR = "engine_error"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True)
class ErrorRow:
    """What an error is to callers and to metrics."""

    code: str
    """Stable and machine readable. Two rows share one where callers need no difference."""
    status: int
    """Of an HTTP answer."""
    kind: type[HiarError] | None = None
    """The engine's exception; None where only the server raises it."""
    rejected: Rejection | None = None
    """None: it comes after a request was taken, or to other requests than for a video."""
    finish: Finish | None = None
    """How a video ends that fails with it. None: none does."""
    retry_s: float | None = None
    """Seconds after which asking again makes sense, where the error does not say so itself. None: never."""

    @property
    def type(self) -> str:
        """Its class, in the words of OpenAI's clients."""
        return "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# The row with a type's own code is also that of its subclasses without a row, and of codes of its without one.
ERRORS = (
    INVALID_REQUEST := ErrorRow("invalid_request", 400, RequestError, rejected=Rejection.VALIDATION),
    UNAUTHORIZED := ErrorRow("unauthorized", 401, rejected=Rejection.UNAUTHORIZED),
    FORBIDDEN := ErrorRow("forbidden", 403, rejected=Rejection.FORBIDDEN),
    REQUEST_TIMEOUT := ErrorRow("request_timeout", 408, rejected=Rejection.TIMEOUT),
    TOO_LARGE := ErrorRow("payload_too_large", 413, rejected=Rejection.TOO_LARGE),
    CLIENT_LEFT := ErrorRow("client_left", 499),
    UNSUPPORTED_TYPE := ErrorRow("unsupported_media_type", 415, rejected=Rejection.VALIDATION),
    METHOD_NOT_ALLOWED := ErrorRow("method_not_allowed", 405),
    NOT_FOUND := ErrorRow("not_found", 404, UnknownVideo),
    CONFLICT := ErrorRow("conflict", 409, Conflict, rejected=Rejection.VALIDATION),
    GONE := ErrorRow("gone", 410, BlockGone),
    RANGE_NOT_SATISFIABLE := ErrorRow("range_not_satisfiable", 416),
    UNKNOWN_HOST := ErrorRow("unknown_host", 421, rejected=Rejection.FORBIDDEN),
    TOO_EARLY := ErrorRow("too_early", 425, BlockTooEarly, retry_s=1),
    RATE_LIMITED := ErrorRow("rate_limited", 429, rejected=Rejection.CLIENT_LIMIT, retry_s=10),
    QUEUE_FULL := ErrorRow("overloaded", 429, Overloaded, rejected=Rejection.QUEUE_FULL, retry_s=10),
    NO_PLACE := ErrorRow("overloaded", 429, rejected=Rejection.QUEUE_TIMEOUT, retry_s=10),
    PROMPT_REPLACED := ErrorRow("prompt_replaced", 429, PromptReplaced, retry_s=1),
    TOO_MANY_CONNECTIONS := ErrorRow("overloaded", 503, retry_s=1),
    STARTING := ErrorRow("starting", 503, EngineUnavailable, rejected=Rejection.NOT_READY, retry_s=5),
    DRAINING := ErrorRow(
        "draining", 503, EngineUnavailable, rejected=Rejection.DRAINING, finish=Finish.DRAIN, retry_s=5
    ),
    UNAVAILABLE := ErrorRow("engine_unavailable", 503, EngineUnavailable, rejected=Rejection.NOT_READY, retry_s=5),
    REFUSED := ErrorRow("refused", 503, Refused, rejected=Rejection.NOT_READY, retry_s=5),
    LATE_BLOCK := ErrorRow("late_block", 503, retry_s=1),
    FIRST_FRAGMENT_TIMEOUT := ErrorRow("first_segment_timeout", 504),
    ENGINE_ERROR := ErrorRow("engine_error", 503, VideoFailed, finish=Finish.ENGINE_ERROR, retry_s=1),
    CORRUPT_LATENTS := ErrorRow("corrupt_latents", 502, CorruptLatents, finish=Finish.ENGINE_ERROR),
    OUT_OF_MEMORY := ErrorRow("engine_oom", 503, EngineOutOfMemory, finish=Finish.ENGINE_ERROR, retry_s=1),
    ENCODER_FAILED := ErrorRow("encoder_failed", 503, EncoderFailed, finish=Finish.ENGINE_ERROR, retry_s=1),
    WORKER_LOST := ErrorRow("worker_lost", 503, WorkerLost, finish=Finish.ENGINE_ERROR, retry_s=1),
    BUG := ErrorRow("internal_error", 500, HiarError, finish=Finish.INTERNAL_ERROR),
)


class ApiError(Exception):
    """An answer that is not a success, ready to send."""

    def __init__(
        self, row: ErrorRow, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``param`` names the field at fault. A ``Retry-After`` comes from the row unless ``headers`` has one."""
        super().__init__(message)
        assert row in ERRORS, row
        self.row = row
        self.message = message
        self.param = param
        self.headers = {**_retry_after(row.retry_s), **(headers or {})}

    def body(self) -> bytes:
        """The JSON body, in ASCII: a lone surrogate in a field name must not break the answer."""
        error = {"code": self.row.code, "message": self.message, "param": self.param, "type": self.row.type}
        return json.dumps({"error": error}).encode("ascii")

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body(), self.row.status, self.headers, media_type="application/json")


def row_of(error: HiarError | ApiError) -> ErrorRow:
    """The row of an error."""
    if isinstance(error, ApiError):
        return error.row
    return _row_of(type(error), error.code)


def _row_of(kind: type[HiarError], code: str) -> ErrorRow:
    nearest = next(row.kind for base in kind.__mro__ for row in ERRORS if row.kind is base)
    by_code = {row.code: row for row in ERRORS if row.kind is nearest}
    return by_code.get(code) or by_code[nearest.code]


def from_engine(error: HiarError) -> ApiError:
    """Turn an engine error that came before the first byte of video into an answer."""
    headers = _retry_after(error.retry_after_s) if isinstance(error, Refused) else {}
    param = error.param if isinstance(error, RequestError) else None
    return ApiError(row_of(error), error.message, param=param, headers=headers)


def finish_of(outcome: EndReason | HiarError) -> Finish:
    """How a video ended, as metrics call it."""
    if isinstance(outcome, HiarError):
        return row_of(outcome).finish or Finish.INTERNAL_ERROR
    return Finish.CLIENT_CANCEL if outcome is EndReason.CANCELLED else Finish(outcome.value)


def unavailable(state: EngineState, detail: str) -> ApiError:
    """The refusal of new work while the engine is in ``state``, any but ready."""
    return ApiError(_row_of(EngineUnavailable, state.value), detail)


def _retry_after(seconds: float | None) -> dict[str, str]:
    """Whole seconds, at least 1."""
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
