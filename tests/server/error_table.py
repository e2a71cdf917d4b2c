"""Writes the table of errors into ``docs/api.md``: ``python -m tests.server.error_table``."""

from server.errors import CLIENT_LEFT, ERRORS
from tests.server.test_main import ROOT

DOCUMENT = ROOT / "docs" / "api.md"
BEGIN, END = "<!-- errors -->\n", "<!-- end of errors -->\n"


def table() -> str:
    rows = ["| status | `code` | when, and what to do | again after |", "|---|---|---|---|"]
    for row in sorted(ERRORS, key=lambda one: one.status):
        if row is not CLIENT_LEFT:
            again = "" if row.retry_s is None else f"{row.retry_s:g} s"
            rows.append(f"| {row.status} | `{row.code}` | {row.about} | {again} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
