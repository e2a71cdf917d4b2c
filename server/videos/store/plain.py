"""Frozen records as JSON and back, so that they can be kept: by their fields' types, without code in the data.

A record may have got new fields since it was kept: those take their defaults. Bytes are set aside, as they do not
belong in a row.
"""

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
_Record = TypeVar("_Record")


def to_plain(value: Any, blobs: list[bytes]) -> Json:
    """A record's fields, with enumerations by their values; bytes go to ``blobs`` and leave their number."""
    if is_dataclass(value):
        return {item.name: to_plain(getattr(value, item.name), blobs) for item in fields(value)}
    if isinstance(value, Enum):
        return to_plain(value.value, blobs)
    if isinstance(value, bytes):
        blobs.append(value)
        return len(blobs) - 1
    if isinstance(value, tuple | list):
        return [to_plain(item, blobs) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), f"{type(value)} cannot be kept"
    return value


def from_plain(kind: type[_Record], plain: Json, blobs: list[bytes] | None) -> _Record:
    """The record that ``to_plain`` was given; without ``blobs`` its bytes are empty.

    Raises ``ValueError`` or ``KeyError`` where it is another.
    """
    assert is_dataclass(kind)
    if not isinstance(plain, dict):
        raise ValueError(f"{plain!r} is no {kind.__name__}")
    hints = get_type_hints(kind)
    given = {
        item.name: _read(hints[item.name], plain[item.name], blobs)
        for item in fields(kind)
        if item.name in plain or (item.default is MISSING and item.default_factory is MISSING)
    }
    return kind(**given)


def _read(hint: Any, plain: Json, blobs: list[bytes] | None) -> Any:
    if get_origin(hint) in {types.UnionType, Union}:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        assert len(kinds) == 1, f"{hint} says two things"
        return None if plain is None else _read(kinds[0], plain, blobs)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), plain, blobs)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return from_plain(hint, plain, blobs)
    if hint is bytes:
        assert isinstance(plain, int)
        return b"" if blobs is None else blobs[plain]
    return hint(plain)


def _tuple(kinds: tuple[Any, ...], plain: Json, blobs: list[bytes] | None) -> tuple[Any, ...]:
    if not isinstance(plain, list):
        raise ValueError(f"{plain!r} is no list")
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], item, blobs) for item in plain)
    return tuple(_read(kind, item, blobs) for kind, item in zip(kinds, plain, strict=True))
