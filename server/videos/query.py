"""What the queries of addresses say, read strictly: an unknown or repeated word is refused by name."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from server.errors import INVALID_REQUEST, ApiError
from server.videos.files import Variant
from server.videos.idempotency import HEADER, KEY_LENGTH_MAX

LIST_MAX = 100
LIST_DEFAULT = 20


_DIGITS = 9
NUMBER = {"type": "integer", "minimum": 0, "maximum": 10**_DIGITS - 1}
"""The schema of a block's number."""


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {**_parameter(name, description, schema), "in": "header"}


IDEMPOTENCY = _header(
    HEADER,
    "The same request with the same key within 24 hours gets the same video.",
    {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX},
)
LIST_QUERY = (
    _parameter(
        "limit", "How many to list.", {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": LIST_DEFAULT}
    ),
    _parameter("after", "Id of the last one of the page before.", {"type": "string"}),
    _parameter("order", "Newest first is desc.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
)
"""Of the API's document: queries are read here and not by the framework."""
STREAM_QUERY = (
    _parameter(
        "from",
        "The first block; `live` is the newest.",
        {"type": "string", "pattern": "^(live|[0-9]{1,9})$", "default": "0", "examples": ["12", "live"]},
    ),
)
CONTENT_QUERY = (
    _parameter("variant", "What of it.", {"type": "string", "enum": list(Variant), "default": Variant.VIDEO}),
)
CONTENT_HEADERS = (
    _header("Range", "One range of bytes of an ended video.", {"type": "string", "examples": ["bytes=0-1023"]}),
    _header("If-Range", "Heed `Range` only if the `ETag` is still this.", {"type": "string"}),
    _header("If-None-Match", "Answer 304 if the `ETag` is this.", {"type": "string"}),
)
LAST_EVENT_ID = _header(
    "Last-Event-ID",
    "The `id` of the last event that is known.",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
)
RELOAD_QUERY = (
    _parameter("_HLS_msn", "Answer when this block is told of.", NUMBER),
    _parameter("_HLS_part", "A part of that block, which has one.", NUMBER),
)


@dataclass(frozen=True)
class Page:
    """Which part of the list is asked for."""

    limit: int
    after: str | None
    """The id behind which it begins."""
    is_ascending: bool


def page_of(request: Request) -> Page:
    """Read `limit`, `after` and `order`. Raises ``ApiError`` 400."""
    words = _words(request, {"limit", "after", "order"})
    limit = words.get("limit", str(LIST_DEFAULT))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 3 and 1 <= int(limit) <= LIST_MAX):
        raise _invalid("limit", f"limit: this must be 1 to {LIST_MAX}")
    order = words.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise _invalid("order", "order: this must be asc or desc")
    return Page(int(limit), words.get("after"), order == "asc")


def from_block(request: Request) -> int | None:
    """Read `from`: a block, 0 if it is not given, or None for `live`. Raises ``ApiError`` 400."""
    text = _words(request, {"from"}).get("from", "0")
    if text == "live":
        return None
    if not _is_number(text):
        raise _invalid("from", "from: this must be the number of a block, or live")
    return int(text)


def variant_of(request: Request) -> Variant:
    """Read `variant`. Raises ``ApiError`` 400."""
    text = _words(request, {"variant"}).get("variant", Variant.VIDEO)
    if text not in set(Variant):
        raise _invalid("variant", f"variant: this must be one of {', '.join(Variant)}")
    return Variant(text)


def block_number(text: str) -> int:
    """Read the number of a block in an address. Raises ``ApiError`` 400."""
    if not _is_number(text):
        raise _invalid("n", "n: this must be the number of a block")
    return int(text)


def reload_of(request: Request) -> int | None:
    """Read the block that a playlist is to wait for, if any: a part behind a block's only one is that of the next.

    Other words of HLS are for what we do not offer; the standard has them ignored. Raises ``ApiError`` 400.
    """
    words = _words(request, {"_HLS_msn", "_HLS_part"}, ignored="_HLS_")
    for name, text in words.items():
        if not _is_number(text):
            raise _invalid(name, f"{name}: this must be a number")
    if "_HLS_msn" not in words:
        if words:
            raise _invalid("_HLS_part", "_HLS_part: this needs _HLS_msn")
        return None
    return int(words["_HLS_msn"]) + (int(words.get("_HLS_part", "0")) > 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS


def _words(request: Request, known: Collection[str], ignored: str | None = None) -> dict[str, str]:
    """``ignored``: how others begin that may be there."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            if ignored is not None and name.startswith(ignored):
                continue
            raise _invalid(None, f"the query may hold {', '.join(sorted(known))} only")
        if name in found:
            raise _invalid(name, f"{name}: this is given more than once")
        found[name] = value
    return found


def _invalid(param: str | None, message: str) -> ApiError:
    return ApiError(INVALID_REQUEST, message, param=param)
