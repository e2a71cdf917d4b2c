"""The one shape of every answer that is not a success, for all that a route or the framework can raise.

``{"error": {"code", "message", "param", "type"}}``; ``param`` names the field at fault. Knows no route.
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine import HiarError
from server.errors import BUG, ERROR_KEY, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, ApiError, from_engine
from server.http.wording import UNION_TAGS, sentence

_SHOWN_NAME_LENGTH = 64
_RETIRED = "/v1/sessions"
"""Where videos were before they were resources."""


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable and machine readable.", examples=["invalid_request"])
    message: str = Field(description="For people: what is wrong and how to mend it.")
    param: str | None = Field(
        description="The field at fault, such as `prompt[1].at_seconds`; null when there is none."
    )
    type: str = Field(description="Its class, as OpenAI's clients know it.", examples=["invalid_request_error"])


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


def from_validation(error: ValidationError) -> ApiError:
    """Describe the first field at fault. The value itself is never echoed: it may be huge or not printable."""
    first = error.errors(include_url=False)[0]
    param, message = _param(first["loc"]), sentence(first)
    text = f"{param}: {message}" if param else f"the body: {message}"
    return ApiError(INVALID_REQUEST, text, param=param)


def _param(location: tuple[int | str, ...]) -> str | None:
    text = ""
    for part in location:
        if part in UNION_TAGS:
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return text.removeprefix(".") or None


def _printable(name: str) -> str:
    safe = name.encode("ascii", "backslashreplace").decode("ascii")
    shown = "".join(char if char.isprintable() else "?" for char in safe)
    return shown if len(shown) <= _SHOWN_NAME_LENGTH else shown[:_SHOWN_NAME_LENGTH] + "..."


def answer_in_one_shape(app: FastAPI) -> None:
    """Register the handlers that give every error of ``app`` the shape above."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HiarError, _on_engine_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answer(request, error)


async def _on_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HiarError)
    return _answer(request, from_engine(error))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NOT_FOUND.status:
        return _answer(request, ApiError(NOT_FOUND, _nothing_at(request.url.path)))
    if error.status_code == METHOD_NOT_ALLOWED.status:
        return _wrong_method(request)
    return _answer(request, ApiError(INVALID_REQUEST, "the request cannot be read", headers=error.headers))


def _answer(request: Request, error: ApiError) -> Response:
    request.scope[ERROR_KEY] = error
    return error.response()


def _nothing_at(path: str) -> str:
    if path.startswith(_RETIRED):
        return f"{_RETIRED} is gone: a video is at /v1/videos/{{id}} now; see /openapi.json"
    return "there is nothing at this address; see /openapi.json"


def _wrong_method(request: Request) -> Response:
    allowed = _allowed_methods(request)
    headers = {"Allow": ", ".join(allowed)}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    message = f"this address does not answer {_printable(request.method)}; use {' or '.join(allowed)}"
    return _answer(request, ApiError(METHOD_NOT_ALLOWED, message, headers=headers))


def _allowed_methods(request: Request) -> list[str]:
    """Methods of all routes that share the path: the router itself reports only those of the first."""
    found = {"OPTIONS"}
    for route in request.app.routes:
        regex: Any = getattr(route, "path_regex", None)
        if regex is not None and regex.match(request.url.path):
            found |= route.methods
    if "GET" in found:
        found.add("HEAD")
    return sorted(found)


async def _on_bug(_request: Request, _error: Exception) -> Response:
    """Answer for an exception nobody foresaw; the framework logs its traceback once."""
    return ApiError(BUG, "the server has a bug; its log has the details").response()
