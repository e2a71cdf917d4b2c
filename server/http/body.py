"""Reads a JSON request body strictly, before any schema sees it.

Knows no field. Refuses what the standard parser lets through: duplicate keys, endless nesting, other encodings. NaN
passes on purpose: the schema refuses it and, unlike a parser, can name the field.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from server.errors import INVALID_REQUEST, UNSUPPORTED_TYPE, ApiError
from server.http.answers import from_validation

_Model = TypeVar("_Model", bound=BaseModel)


def body_of(model: type[_Model]) -> Callable[[Request], Awaitable[_Model]]:
    """Return a dependency that reads the body as ``model``. It raises ``ApiError`` 400 or 415."""

    async def read(request: Request) -> _Model:
        require_json(request)
        try:
            return model.model_validate(parse_json(await request.body()))
        except ValidationError as error:
            raise from_validation(error) from None

    return read


def parse_json(raw: bytes) -> Any:
    """Parse one JSON value. Raises ``ApiError`` 400 that says what is wrong with the text."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: bad byte at position {error.start}") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: see line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _invalid("the body is nested too deeply") from None
    except ValueError:
        # The only other one: an integer of more digits than Python converts.
        raise _invalid("the body holds a number with too many digits") from None


def require_json(request: Request) -> None:
    """Raise ``ApiError`` 415 where a request says that its body is anything but plain JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(UNSUPPORTED_TYPE, "send the body as JSON with 'Content-Type: application/json'")
    require_plain(request)


def require_plain(request: Request) -> None:
    """Raise ``ApiError`` 415 where a body is compressed."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError(UNSUPPORTED_TYPE, "send the body uncompressed, without Content-Encoding")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _invalid("a field is given more than once", param=name[:64])
        found[name] = value
    return found


def _invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(INVALID_REQUEST, message, param=param)
