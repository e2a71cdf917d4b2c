"""Rows of text in columns, and records as JSON."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print them; the last column takes what the terminal has left."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    left = max(16, shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(head) - 1))
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        print("  ".join([*cells, _cut(row[-1], left)]).rstrip())


def print_json(told: "DataclassInstance | Sequence[DataclassInstance]") -> None:
    """Print one record or a list of them, as the server has it."""
    print(json.dumps(_plain(told), indent=2, ensure_ascii=False))


def _plain(told: Any) -> Any:
    return [_plain(one) for one in told] if isinstance(told, Sequence) else dataclasses.asdict(told)


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 3]}..."
