"""Pieces of HTML that the page is made of."""

import re
from collections.abc import Sequence
from html import escape

Rows = list[tuple[str, ...]]
"""Cells, as HTML."""


def words(text: str) -> str:
    """Text in which backticks mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def pre(text: str) -> str:
    """Lines as they are."""
    return f"<pre><code>{escape(text, quote=False)}</code></pre>"


def details(summary: str, inside: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def cell(inside: str, anchor: str | None) -> str:
    """A cell that may be linked to."""
    return inside if anchor is None else f'<span id="{anchor}">{inside}</span>'


def table(heads: Sequence[str], rows: Rows) -> str:
    """With a row of heads. A wide one scrolls by itself."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{one}</td>' for one in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
