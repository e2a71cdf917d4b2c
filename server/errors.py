"""Every error a caller can meet, one row each: answers, error boxes and metrics read it here and nowhere else.

An error is an engine's exception (``HiarError``), whose row is found by its type and code, or an ``ApiError``, which
names its row. Errors of a start (``engine.errors.START_FAILURES``) come before the first request and have no row.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

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
    EngineStopped,
    EngineUnavailable,
    HiarError,
    ModelChanged,
    Overloaded,
    PromptReplaced,
    Refused,
    RequestError,
    StorageFailed,
    StorageFull,
    UnknownVideo,
    VideoFailed,
    WorkerLost,
)
from server.metrics.words import Finish, Rejection

ERROR_KEY = "hiar.error"
"""Where the scope of a request holds the ``ApiError`` it was answered with."""


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
    about: str = ""
    """For people: when it comes and what to do, for the document of the API."""

    @property
    def type(self) -> str:
        """Its class, in the words of OpenAI's clients."""
        return "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def _failed(code: str, status: int, kind: type[VideoFailed], retry_s: float | None, about: str) -> ErrorRow:
    """A video that was taken and could not be finished."""
    return ErrorRow(code, status, kind, finish=Finish.ENGINE_ERROR, retry_s=retry_s, about=about)


# The row with a type's own code is also that of its subclasses without a row, and of codes of its without one.
ERRORS = (
    INVALID_REQUEST := ErrorRow(
        "invalid_request",
        400,
        RequestError,
        rejected=Rejection.VALIDATION,
        about="The request is not valid; param names the field and the message says what it takes.",
    ),
    UNAUTHORIZED := ErrorRow(
        "unauthorized",
        401,
        rejected=Rejection.UNAUTHORIZED,
        about="No key, an unknown key, or a viewer token that has expired or is for another video.",
    ),
    FORBIDDEN := ErrorRow(
        "forbidden",
        403,
        rejected=Rejection.FORBIDDEN,
        about="The key may not ask for this priority, or a web page of another origin asks.",
    ),
    STORAGE_LIMIT := ErrorRow(
        "storage_limit",
        403,
        rejected=Rejection.CLIENT_LIMIT,
        about="The key's stored videos take as many bytes as it may have; delete some, or wait until they expire.",
    ),
    REQUEST_TIMEOUT := ErrorRow(
        "request_timeout",
        408,
        rejected=Rejection.TIMEOUT,
        about="The header or the body did not arrive in time.",
    ),
    TOO_LARGE := ErrorRow(
        "payload_too_large",
        413,
        rejected=Rejection.TOO_LARGE,
        about="The body has too many bytes.",
    ),
    CLIENT_LEFT := ErrorRow(
        "client_left",
        499,
        about="The client left before its answer; only the log tells of it.",
    ),
    UNSUPPORTED_TYPE := ErrorRow(
        "unsupported_media_type",
        415,
        rejected=Rejection.VALIDATION,
        about="Send the body as application/json, uncompressed.",
    ),
    METHOD_NOT_ALLOWED := ErrorRow(
        "method_not_allowed",
        405,
        about="The address does not answer this method; Allow lists those it does.",
    ),
    NOT_FOUND := ErrorRow(
        "not_found",
        404,
        UnknownVideo,
        about="There is no such address, model, block, or video, or it is another key's.",
    ),
    CONFLICT := ErrorRow(
        "conflict",
        409,
        Conflict,
        rejected=Rejection.VALIDATION,
        about="The video is not in a state for this, or this Idempotency-Key came with another request before.",
    ),
    GONE := ErrorRow(
        "gone",
        410,
        BlockGone,
        about="The block or the video is kept no longer; the message names the earliest block there is.",
    ),
    RANGE_NOT_SATISFIABLE := ErrorRow(
        "range_not_satisfiable",
        416,
        about="The file has no such part, or the video is still being made.",
    ),
    URI_TOO_LONG := ErrorRow("uri_too_long", 414, about="The address is longer than 8 KiB."),
    HEADERS_TOO_LARGE := ErrorRow("headers_too_large", 431, about="The headers are longer than 64 KiB."),
    UNSUPPORTED_VERSION := ErrorRow("unsupported_version", 505, about="The server speaks HTTP/1.1."),
    UNKNOWN_HOST := ErrorRow(
        "unknown_host",
        421,
        rejected=Rejection.FORBIDDEN,
        about="The server does not go by this Host; its operator can add it to --allowed-hosts.",
    ),
    TOO_EARLY := ErrorRow(
        "too_early",
        425,
        BlockTooEarly,
        retry_s=1,
        about="The block, or a picture of it, is too far ahead; ask again.",
    ),
    RATE_LIMITED := ErrorRow(
        "rate_limited",
        429,
        rejected=Rejection.CLIENT_LIMIT,
        retry_s=10,
        about="Too many requests, videos or new prompts of one key, address or video.",
    ),
    QUEUE_FULL := ErrorRow(
        "overloaded",
        429,
        Overloaded,
        rejected=Rejection.QUEUE_FULL,
        retry_s=10,
        about="All places and the queue are taken; try again later.",
    ),
    NO_PLACE := ErrorRow(
        "overloaded",
        429,
        rejected=Rejection.QUEUE_TIMEOUT,
        retry_s=10,
        about="No place became free in time; try again later.",
    ),
    PROMPT_REPLACED := ErrorRow(
        "prompt_replaced",
        429,
        PromptReplaced,
        retry_s=1,
        about="A newer prompt of the same video took the place of this one.",
    ),
    TOO_MANY_CONNECTIONS := ErrorRow(
        "overloaded",
        503,
        retry_s=1,
        about="The server has as many connections as it takes.",
    ),
    STARTING := ErrorRow(
        "starting",
        503,
        EngineUnavailable,
        rejected=Rejection.NOT_READY,
        retry_s=5,
        about="The model is loading.",
    ),
    DRAINING := ErrorRow(
        "draining",
        503,
        EngineUnavailable,
        rejected=Rejection.DRAINING,
        finish=Finish.DRAIN,
        retry_s=5,
        about="The server is being stopped; running videos end at their next block.",
    ),
    UNAVAILABLE := ErrorRow(
        "engine_unavailable",
        503,
        EngineUnavailable,
        rejected=Rejection.NOT_READY,
        retry_s=5,
        about="The engine is restarting, or has failed.",
    ),
    REFUSED := ErrorRow(
        "refused",
        503,
        Refused,
        rejected=Rejection.NOT_READY,
        retry_s=5,
        about="The server cannot take the video now.",
    ),
    LATE_BLOCK := ErrorRow(
        "late_block",
        503,
        retry_s=1,
        about="The block did not come in time; ask again.",
    ),
    FIRST_FRAGMENT_TIMEOUT := ErrorRow(
        "first_segment_timeout",
        504,
        about="The video's first block did not come in time.",
    ),
    ENGINE_ERROR := _failed("engine_error", 503, VideoFailed, 1, "The video failed while it was made; try again."),
    CORRUPT_LATENTS := _failed(
        "corrupt_latents",
        502,
        CorruptLatents,
        None,
        "The model made numbers that are no picture; another seed or prompt may help.",
    ),
    OUT_OF_MEMORY := _failed("engine_oom", 503, EngineOutOfMemory, 1, "The device had no memory left for this video."),
    ENCODER_FAILED := _failed("encoder_failed", 503, EncoderFailed, 1, "The encoder of the video failed."),
    WORKER_LOST := _failed("worker_lost", 503, WorkerLost, 1, "A worker died and the video could not go on."),
    ENGINE_STOPPED := _failed("worker_lost", 503, EngineStopped, 1, "No worker will run the video any more."),
    MODEL_CHANGED := _failed("model_changed", 502, ModelChanged, None, "The video was begun with another model."),
    STORAGE_FAILED := _failed("storage_failed", 503, StorageFailed, 1, "The video could not be stored."),
    STORAGE_FULL := _failed("storage_full", 507, StorageFull, 10, "There was no room to store the video."),
    BUG := ErrorRow(
        "internal_error",
        500,
        HiarError,
        finish=Finish.INTERNAL_ERROR,
        about="The server has a bug; its log has the details under the request's id.",
    ),
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
