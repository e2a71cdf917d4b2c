"""Reads ``multipart/form-data``: a few texts and files, out of a body that is in memory already. Knows no schema."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import INVALID_REQUEST, ApiError

FORM_TYPE = "multipart/form-data"
PARTS_MAX = 32
_WHOLE, _NUMBER = frozenset({"seed", "fps", "priority"}), frozenset({"seconds", "linger_seconds"})


@dataclass
class Form:
    """What a form holds, in its order."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)


class _Reader:
    """What the parser calls, part after part."""

    def __init__(self, file_names: Collection[str]) -> None:
        self._file_names, self.form = file_names, Form()
        self._header, self._value = b"", b""
        self._name, self._is_file = "", False
        self._data: list[bytes] = []
        self._seen: set[str] = set()
        self.is_whole = False

    def begin(self) -> None:
        self._name, self._is_file, self._data = "", False, []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._is_file = b"filename" in options
        self._header, self._value = b"", b""

    def headers_finished(self) -> None:
        if not self._name:
            raise _invalid("a part of the form has no name")
        if self._name in self._seen:
            raise _invalid("a field is given more than once", self._name[:64])
        if len(self._seen) == PARTS_MAX:
            raise _invalid(f"the form has more than {PARTS_MAX} parts")
        if self._is_file and self._name not in self._file_names:
            raise _invalid(f"{self._name[:64]}: this is no field for a file", self._name[:64])
        self._seen.add(self._name)

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def end(self) -> None:
        data = b"".join(self._data)
        if self._is_file:
            self.form.files.append((self._name, data))
        else:
            try:
                self.form.texts.append((self._name, data.decode("utf-8")))
            except UnicodeDecodeError:
                raise _invalid(f"{self._name[:64]}: this is not UTF-8", self._name[:64]) from None
        self._data = []

    def finished(self) -> None:
        self.is_whole = True


def form_of(body: bytes, content_type: str, file_names: Collection[str]) -> Form:
    """The form that a body is. Files may come in ``file_names`` only. Raises ``ApiError`` 400."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _invalid("Content-Type names no boundary of the form's parts")
    reader = _Reader(file_names)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_finished,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.finished,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _invalid("the body is no multipart form") from None
    if not reader.is_whole:
        raise _invalid("the form is cut off before its end")
    return reader.form


def typed(texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Fields as JSON would have them: numbers where a field is one. The schema refuses what is none."""
    return {name: _number(name, text) for name, text in texts}


def _number(name: str, text: str) -> Any:
    if name in _WHOLE and re.fullmatch(r"-?[0-9]{1,20}", text):
        return int(text)
    if name in _WHOLE | _NUMBER and re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,3})?", text):
        return float(text)
    return text


def _invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(INVALID_REQUEST, message, param=param)
