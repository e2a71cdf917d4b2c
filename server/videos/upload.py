"""Requests for videos that may bring a picture or a clip: in JSON as base64 text, in a form as a file.

Media is cut out of the body before a parser sees it, so that what is parsed stays as small as without.
"""

import asyncio
import binascii
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from server.errors import INVALID_REQUEST, TOO_LARGE, ApiError
from server.http.answers import from_validation
from server.http.body import parse_json, require_json, require_plain
from server.settings import TransportLimits
from server.videos.decoding import Media
from server.videos.form import FORM_TYPE, form_of, typed

_Model = TypeVar("_Model", bound=BaseModel)

TEXT_BYTES = TransportLimits.body_bytes
"""Of a body without its media."""
MEDIA_FIELDS = ("image", "video", "input_reference")
_BASE64 = re.compile(rb'"(image|video|input_reference)"(\s*+:\s*+)"((?:[A-Za-z0-9+/=]++|\\[/nr])*+)"')
"""A field of media in JSON; ``\\/`` and line ends are how some write base64."""
_TOKEN = secrets.token_hex(16)
"""Stands for media that was cut out; no caller can know it."""


@dataclass
class Asked(Generic[_Model]):
    """What a request asks for."""

    fields: _Model
    media: Media | None = None
    """None too once it is let go: this record lives as long as the answer."""

    @property
    def words(self) -> str:
        """All of it in a text that tells it from any other request."""
        if self.media is None:
            return self.fields.model_dump_json()
        return self.fields.model_dump_json() + hashlib.sha256(self.media.data).hexdigest()


def asked_of(model: type[_Model]) -> Callable[[Request], Awaitable[Asked[_Model]]]:
    """Return a dependency that reads a JSON or form body as ``model``, and its media.

    It raises ``ApiError`` 400, 413 where there is more than ``TEXT_BYTES`` beside the media, or 415.
    """

    async def read(request: Request) -> Asked[_Model]:
        body = b"".join([chunk async for chunk in request.stream()])
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() == FORM_TYPE:
            require_plain(request)
            fields, media = await asyncio.to_thread(_of_form, body, kind)
        else:
            require_json(request)
            is_large = len(body) > TEXT_BYTES
            fields, media = await asyncio.to_thread(_of_json, body) if is_large else _of_json(body)
        if len(media) > 1:
            names = " and ".join(one.name for one in media)
            raise ApiError(INVALID_REQUEST, f"{media[1].name}: send one of {names}", param=media[1].name)
        try:
            return Asked(model.model_validate(fields), media[0] if media else None)
        except ValidationError as error:
            raise from_validation(error) from None

    return read


def _of_json(body: bytes) -> tuple[Any, list[Media]]:
    found: list[bytes] = []

    def cut(match: re.Match[bytes]) -> bytes:
        found.append(match[3])
        return b'"%b"%b"%b%d"' % (match[1], match[2], _TOKEN.encode(), len(found) - 1)

    text = _BASE64.sub(cut, body)
    if len(text) > TEXT_BYTES:
        raise _too_large()
    fields = parse_json(text)
    media = []
    for name in MEDIA_FIELDS if isinstance(fields, dict) else ():
        value = fields.pop(name, None)
        if value is not None:
            media.append(Media(name, _decoded(name, value, found)))
    return fields, media


def _decoded(name: str, value: Any, found: list[bytes]) -> bytes:
    if not isinstance(value, str) or not value.startswith(_TOKEN):
        raise _not_base64(name)
    text = found[int(value.removeprefix(_TOKEN))]
    if b"\\" in text:
        text = re.sub(rb"\\[nr]", b"", text).replace(b"\\/", b"/")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise _not_base64(name) from None
    if not data:
        raise _not_base64(name)
    return data


def _of_form(body: bytes, kind: str) -> tuple[dict[str, Any], list[Media]]:
    parts = form_of(body, kind, MEDIA_FIELDS)
    if sum(len(name) + len(text) for name, text in parts.texts) > TEXT_BYTES:
        raise _too_large()
    media = [Media(name, data) for name, data in parts.files]
    for name, _ in parts.texts:
        if name.partition("[")[0] in MEDIA_FIELDS:
            message = f"{name[:64]}: send a file, no text; addresses and paths are not followed"
            raise ApiError(INVALID_REQUEST, message, param=name[:64])
    return typed(parts.texts), media


def _not_base64(name: str) -> ApiError:
    message = f"{name}: this must be the picture or clip itself as base64 text; addresses and paths are not followed"
    return ApiError(INVALID_REQUEST, message, param=name)


def _too_large() -> ApiError:
    message = f"the body is larger than {TEXT_BYTES} bytes without a picture or clip (base64 text in image or video)"
    return ApiError(TOO_LARGE, message, headers={"Connection": "close"})
