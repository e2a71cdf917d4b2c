"""The errors that a server tells of, in an answer or in a stream, as exceptions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hiar_client.errors import HiarError, ServerError, UnexpectedAnswer

REQUEST_TIMEOUT = 408
"""The one refusal without ``Retry-After`` that may not come again: the request was too slow."""


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> HiarError:
    """The error that an answer is, which is no success."""
    request_id, retry_after = headers.get("x-request-id"), headers.get("retry-after", "")
    retry_after_s = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else None
    try:
        error = json.loads(body)["error"]
        code, message, param = str(error["code"]), str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return UnexpectedAnswer(
            f"HTTP {status}; is this a HiAR server?",
            status=status,
            request_id=request_id,
            retry_after_s=retry_after_s,
            retryable=retry_after_s is not None or status in {502, 503, 504},
        )
    return _KINDS.get(code, ServerError)(
        message,
        code=code,
        param=param,
        status=status,
        request_id=request_id,
        retry_after_s=retry_after_s,
        retryable=retry_after_s is not None or status == REQUEST_TIMEOUT,
    )


def error_in_stream(payload: Mapping[str, Any]) -> ServerError:
    """The error that a stream tells of in its last box."""
    code = str(payload["code"])
    return _KINDS.get(code, ServerError)(str(payload["message"]), code=code, retryable=bool(payload["retryable"]))


def _kinds(base: type[ServerError]) -> Iterator[type[ServerError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


_KINDS = {kind.code: kind for kind in _kinds(ServerError)}
"""By the code that the server says."""
