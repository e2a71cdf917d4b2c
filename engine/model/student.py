"""Which dictionary of a trainer's file holds the tensors that are wanted (spec section 2.1). Knows no file format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weight_files import printable

STUDENT_KEYS = ("generator_ema", "generator", "model", "state_dict", "generator_lora")
"""Where a trainer's checkpoint keeps the student, best first; low-rank changes of one only where there is no other."""
LORA_KEYS = ("generator_lora", "lora", "generator_ema", "generator", "model", "state_dict")
"""Where a trainer's checkpoint keeps low-rank changes, best first."""

_MAX_DEPTH = 3
"""Dictionaries of which one lies in the next; more are not opened."""
_MAX_KEYS_TOLD = 8


def find_tensors(content: Any, path: Path, key: str | None, among: tuple[str, ...]) -> Any:
    """What lies under ``key``, or under the best of the keys ``among``, or all of a file without them.

    A dictionary in a dictionary is opened: ``{"state_dict": {"generator": ...}}`` holds a ``generator``. Before a
    trainer begins to average, its ``generator_ema`` is there, but None or empty: then it is passed over, unless it is
    what was asked for.

    Raises:
        WeightsError: there is nothing under the key that was asked for.
    """
    if key is None:
        return _best(content, among)
    level = next((level for _, level in _levels(content, among) if key in level), None)
    if level is None:
        raise WeightsError(printable(f"{path} has no {key}; {_advice(content, among)}"))
    if not (isinstance(level[key], dict) and level[key]):
        state = "None" if level[key] is None else "empty" if isinstance(level[key], dict) else "no dictionary"
        raise WeightsError(printable(f"{path} has no tensors as {key}, which is {state}; {_advice(content, among)}"))
    return _best(level[key], among)


def _best(content: Any, among: tuple[str, ...]) -> Any:
    for _ in range(_MAX_DEPTH):
        kept = (content.get(key) for key in among) if isinstance(content, dict) else ()
        inner = next((value for value in kept if isinstance(value, dict) and value), None)
        if inner is None:
            break
        content = inner
    return content


def _levels(content: Any, among: tuple[str, ...]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The dictionaries that a key is looked up in, outer ones first, each with the keys that lead to it."""
    level = [("", content)] if isinstance(content, dict) else []
    for _ in range(_MAX_DEPTH):
        yield from level
        level = [
            (f"{where}{key}.", inner[key])
            for where, inner in level
            for key in among
            if isinstance(inner.get(key), dict) and inner[key]
        ]


def _advice(content: Any, among: tuple[str, ...]) -> str:
    there = [
        f"{where}{key}"
        for where, level in _levels(content, among)
        for key, value in level.items()
        if isinstance(value, dict) and value
    ]
    if not there:
        return "it holds no tensors under any key, so leave the key out"
    more = f" and {len(there) - _MAX_KEYS_TOLD} more" if len(there) > _MAX_KEYS_TOLD else ""
    return f"take one of the keys that hold some: {', '.join(there[:_MAX_KEYS_TOLD])}{more}"
