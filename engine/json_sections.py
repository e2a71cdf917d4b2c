"""From JSON to configs, by the types of their fields: every value is checked, none is guessed.

Reads small files only and knows no layout of a model. What is wrong is a ``StartError`` that names file, section and
key.
"""

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from engine.errors import StartError, unread

Section = TypeVar("Section")

_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises ``StartError``."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise StartError(f"{path} cannot be read: {unread(error)}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StartError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} holds no JSON object")
    return content


def take_section(kind: type[Section], content: dict[str, Any], name: str, source: Path) -> Section:
    """Take a section out of a file's content, as a config. Raises ``StartError``."""
    if name not in content:
        raise StartError(f"{source}: section {name!r} is missing")
    values = content.pop(name)
    if not isinstance(values, dict):
        raise StartError(f"{source}: section {name!r} is no object")
    return checked(kind, values, source, name)


def checked(kind: type[Section], values: Mapping[str, Any], source: Path, section: str) -> Section:
    """A config of JSON values. Raises ``StartError``."""
    fields = converted(kind, values, source, section)
    try:
        return kind(**fields)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {section}: {error}") from error


def converted(kind: type, values: Mapping[str, Any], source: Path, section: str) -> dict[str, Any]:
    """Some fields of a config, of JSON values: lists become tuples, words enums. Raises ``StartError``."""
    assert dataclasses.is_dataclass(kind)
    hints = get_type_hints(kind)
    unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise StartError(f"{source}: {section} has unknown keys {', '.join(unknown)}")
    fields = {}
    for key, value in values.items():
        try:
            fields[key] = _converted(hints[key], value)
        except ValueError as error:
            raise StartError(f"{source}: {section}: {key} is {_shown(value)}; expected {error}") from error
    return fields


def _converted(wanted: Any, value: Any) -> Any:
    """The value as that type. Raises ``ValueError`` with what was expected."""
    if isinstance(wanted, UnionType):
        return _one_of(get_args(wanted), value)
    if get_origin(wanted) is tuple:
        return _items(get_args(wanted), value)
    if issubclass(wanted, Enum):
        return _member(wanted, value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:  # a bool is no number here
        raise ValueError(_WORDS[wanted])
    return value


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    """``T | None``."""
    (wanted,) = [choice for choice in choices if choice is not NoneType]
    if value is None:
        return None
    try:
        return _converted(wanted, value)
    except ValueError as error:
        raise ValueError(f"{error}, or null") from error


def _items(wanted: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """``tuple[T, ...]``, or a type for each item."""
    is_open = wanted[-1] is Ellipsis
    if not isinstance(value, list) or not (is_open or len(value) == len(wanted)):
        raise ValueError("a list" if is_open else f"a list of {len(wanted)}")
    kinds = (wanted[0],) * len(value) if is_open else wanted
    try:
        return tuple(map(_converted, kinds, value))
    except ValueError as error:
        raise ValueError(f"a list, each item {error}") from error


def _member(wanted: type[Enum], value: Any) -> Enum:
    known = {member.value: member for member in wanted}
    if not isinstance(value, str) or value not in known:
        raise ValueError(" or ".join(known))
    return known[value]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 80
"""Letters of a wrong value that are told."""
