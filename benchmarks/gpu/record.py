"""What a section leaves behind: tables, bars, headlines, and what it could not run. Records; they measure nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

Cell = str | int | float
Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Rows of equal length under ``columns``, whose names say units."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Bar:
    """One value of a chart."""

    label: str
    value: float
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars that share one axis."""

    title: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Headline:
    """A figure beside the goal that was set for it."""

    what: str
    value: float
    goal: float


@dataclass
class Section:
    """One part of the report, filled while it is measured, so that a failure keeps what came before it."""

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    headlines: list[Headline] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def skip(self, what: str, why: str) -> None:
        """Write down what was not run."""
        self.not_run.append(f"{what}: {why}")
        print(f"{self.name} not run: {self.not_run[-1]}", flush=True)

    def attempt(self, what: str, work: Callable[[], Result]) -> Result | None:
        """The result of ``work``, or None when it fails, which is written down."""
        ran_out = False
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever one case raises, the others can be measured
            reason = (str(error).strip() or "no message").splitlines()[0]
            self.skip(what, f"{type(error).__name__}: {reason[:200]}")
            ran_out = isinstance(error, torch.OutOfMemoryError)
        if ran_out:  # not before: the error keeps what the failed work had allocated
            torch.cuda.empty_cache()
        return None
