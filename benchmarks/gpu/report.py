"""Puts sections into files: Markdown for people, JSON with every number, and the chart. Measures nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.chart import bar_chart
from benchmarks.gpu.record import Cell, Section, Table

DRY_RUN = "dry run: figures mean nothing"
NOT_MEASURED = (
    "a stream through the server: sockets, video encoding, text encoding, pacing",
    "several GPUs: hand-over between them, and one busy GPU slowing its neighbours; their rates are predicted",
    "windows that still fill, other picture sizes, several videos in one forward, prompts of other lengths",
    "attention of packages outside torch (FlashAttention-3, SageAttention)",
    "SDPA's own choice of backend and its formula; each fused backend is named explicitly instead",
    "products with GELU in their epilogue and attention to text rows by themselves; both are inside the passes",
    "the 14B model, weights of a trained model, and what the video looks like",
    "energy, and speed after hours of load",
)


@dataclass(frozen=True)
class Report:
    """All sections of one run, in order."""

    command: str
    machine: Mapping[str, str]
    clocks_after: Mapping[str, str]
    dry_run: bool
    took_s: float
    sections: Sequence[Section]

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        return f"Measured on {self.machine['device']}" + (f" ({DRY_RUN})" if self.dry_run else "")

    def write(self, folder: Path, name: str) -> None:
        """Write ``name`` with three endings into ``folder``, which is made. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(self.as_json(), indent=1) + "\n")
        (folder / f"{name}.md").write_text(self.as_markdown(f"{name}.svg"))
        panels = [panel for section in self.sections for panel in section.panels]
        (folder / f"{name}.svg").write_text(bar_chart(self.title, panels))

    def as_json(self) -> dict[str, object]:
        """Every number at full precision; the rows of a table are objects by column."""
        return {
            "dry_run": self.dry_run,
            "command": self.command,
            "machine": dict(self.machine),
            "clocks_after": dict(self.clocks_after),
            "took_s": self.took_s,
            "sections": {section.name: _section_json(section) for section in self.sections},
            "not_measured": list(NOT_MEASURED),
        }

    def as_markdown(self, chart_name: str) -> str:
        """The report for people; ``chart_name`` is the picture's file beside it."""
        facts = "; ".join(f"{what} {value}" for what, value in self.machine.items())
        after = "; ".join(f"{what} {value}" for what, value in self.clocks_after.items())
        parts = [f"# {self.title}", f"    {self.command}", f"{facts}. The run took {self.took_s:.0f} s."]
        parts += [f"After the run: {after}."] if after else []
        parts += [_headlines(self.sections), f"![All figures as bars]({chart_name})"]
        parts += [_section_markdown(section) for section in self.sections]
        missing = [f"{section.name}: {line}" for section in self.sections for line in section.not_run]
        parts += ["## Not run", _bullets(missing) if missing else "Everything asked for was run."]
        parts += ["## Not measured", _bullets(NOT_MEASURED)]
        return "\n\n".join(part for part in parts if part) + "\n"


def _section_json(section: Section) -> dict[str, object]:
    return {
        "title": section.title,
        "took_s": section.took_s,
        "tables": [
            {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}
            for table in section.tables
        ],
        "headlines": [{"what": line.what, "value": line.value, "goal": line.goal} for line in section.headlines],
        "notes": section.notes,
        "not_run": section.not_run,
    }


def _section_markdown(section: Section) -> str:
    tables = [f"**{table.title}**\n\n{_table(table)}" for table in section.tables if table.rows]
    return "\n\n".join([f"## {section.title}", *section.notes, *tables])


def _headlines(sections: Sequence[Section]) -> str:
    lines = [line for section in sections for line in section.headlines]
    rows = tuple((line.what, line.value, line.goal, "yes" if line.value >= line.goal else "no") for line in lines)
    return _table(Table("", ("figure", "measured", "at least", "reached"), rows)) if rows else ""


def _table(table: Table) -> str:
    rows = [table.columns, ("---",) * len(table.columns), *(tuple(map(_text, row)) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return f"{cell:.0f}" if isinstance(cell, int) or abs(cell) >= 1000 else f"{cell:.4g}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
