"""The report of a run: Markdown for people, whose first table is all of it in short, and JSON with every number."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.record import Cell, Table
from benchmarks.gpu.smoke.check import Check

NAME = "smoke"
NOT_MEASURED = (
    "what videos look like: weights are random unless a model was given",
    "several videos at once, changes of a prompt, viewers that are slow or leave",
    "speed after hours of load",
)


@dataclass(frozen=True, kw_only=True)
class SmokeReport:
    """All checks of a run so far, in order."""

    command: str
    devices: tuple[str, ...]
    machine: Sequence[dict[str, str]]
    """Of each device; empty if that could not be told."""
    model: str
    size: str
    took_s: float
    checks: Sequence[Check]

    @property
    def passed(self) -> bool:
        """Whether something ran and all that ran passed."""
        ran = [check.passed for check in self.checks if check.passed is not None]
        return bool(ran) and all(ran)

    @property
    def title(self) -> str:
        """What was tried, in a line."""
        names = [facts["device"] for facts in self.machine] or list(self.devices)
        dry = " (dry run: figures mean nothing)" if self.devices[0] == "cpu" else ""
        return f"First run on {', '.join(names)}{dry}"

    def write(self, folder: Path) -> None:
        """Write ``smoke.md`` and ``smoke.json`` into ``folder``, which is made. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{NAME}.json").write_text(json.dumps(self.as_json(), indent=1) + "\n")
        (folder / f"{NAME}.md").write_text(self.as_markdown())

    def as_json(self) -> dict[str, object]:
        """Every number at full precision; the rows of a table are objects by column."""
        return {
            "command": self.command,
            "dry_run": self.devices[0] == "cpu",
            "devices": list(self.devices),
            "machine": list(self.machine),
            "model": self.model,
            "size": self.size,
            "took_s": self.took_s,
            "passed": self.passed,
            "checks": [_check_json(check) for check in self.checks],
            "not_measured": list(NOT_MEASURED),
        }

    def as_markdown(self) -> str:
        """The report for people."""
        facts = "; ".join(f"{what} {value}" for what, value in self.machine[0].items()) if self.machine else "unknown"
        rows = tuple((check.name, check.result, check.verdict) for check in self.checks)
        parts = [
            f"# {self.title}",
            f"    {self.command}",
            f"{facts}. Model: {self.model}. The run took {self.took_s:.0f} s.",
            _markdown(Table("", ("check", "result", "pass"), rows)),
            *(_details(check) for check in self.checks),
            "## Not measured",
            "\n".join(f"* {line}" for line in NOT_MEASURED),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def _check_json(check: Check) -> dict[str, object]:
    return {
        "name": check.name,
        "result": check.result,
        "ran": check.passed is not None,
        "passed": check.passed,
        "took_s": check.took_s,
        "numbers": check.numbers,
        "notes": list(check.notes),
        "tables": [
            {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}
            for table in check.tables
        ],
    }


def _details(check: Check) -> str:
    """A section of its own, if the check has more to tell than its line."""
    tables = [f"**{table.title}**\n\n{_markdown(table)}" for table in check.tables if table.rows]
    notes = [f"* {note}" for note in check.notes]
    if not tables and not notes:
        return ""
    return "\n\n".join([f"## {check.name}, {check.took_s:.0f} s", *(["\n".join(notes)] if notes else []), *tables])


def _markdown(table: Table) -> str:
    rows = [table.columns, ("---",) * len(table.columns), *(tuple(map(_text, row)) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return f"{cell:.0f}" if isinstance(cell, int) or abs(cell) >= 1000 else f"{cell:.4g}"
