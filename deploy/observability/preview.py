"""Draws dashboards as pictures from a Prometheus, so that one can look at them without Grafana.

A stand-in: the panels' places, titles, units, series and colours are right, Grafana's looks are not. Needs matplotlib,
which ``make install-dev`` brings.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from deploy.observability.boards import COLUMNS, Board, board_json
from deploy.observability.panels import Json

NUM_POINTS = 120
_CELL_INCH = (0.9, 0.42)
_NAMES = {"green": "#56a64b", "yellow": "#f2cc0c", "orange": "#ff780a", "red": "#e02f44", "blue": "#3274d9"}
_UNITS = {"s": "s", "bytes": "B", "Bps": "B/s", "watt": "W", "joule": "J", "hertz": "Hz", "reqps": "/s", "ops": "/s"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series: its name in the panel, and a value for each moment, NaN where there is none."""

    name: str
    labels: dict[str, str]
    values: list[float]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is asked of which Prometheus: the last ``seconds``."""

    url: str
    seconds: float
    end_s: float

    @property
    def step_s(self) -> float:
        """Between two moments."""
        return max(1.0, self.seconds / NUM_POINTS)

    @property
    def moments(self) -> list[float]:
        """Seconds before the end."""
        return [index * self.step_s - self.seconds for index in range(int(self.seconds / self.step_s) + 1)]

    def lines(self, target: Json) -> list[Line]:
        """The series of a panel's query."""
        begin_s = self.end_s - self.seconds
        question = {"query": self._concrete(target["expr"]), "start": begin_s, "end": self.end_s, "step": self.step_s}
        with urlopen(f"{self.url}/api/v1/query_range?{urlencode(question)}") as answer:
            found = json.load(answer)["data"]["result"]
        return [self._line(target["legendFormat"], item) for item in found]

    def _line(self, legend: str, item: Json) -> Line:
        labels: dict[str, str] = item["metric"]
        at = {
            round((moment - self.end_s + self.seconds) / self.step_s): float(value) for moment, value in item["values"]
        }
        name = re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), legend)
        shown = ", ".join(labels.values()) if legend == "__auto" else name
        return Line(name=shown, labels=labels, values=[at.get(index, math.nan) for index in range(len(self.moments))])

    def _concrete(self, expr: str) -> str:
        spans = {"$__rate_interval": f"{max(15, 4 * self.step_s):.0f}s", "$__range": f"{self.seconds:.0f}s"}
        for variable, value in spans.items():
            expr = expr.replace(variable, value)
        return re.sub(r"\$\w+", ".*", expr)


def draw(board: Board, folder: Path, url: str, seconds: float) -> Path:
    """Draw ``board`` as it is now into a PNG in ``folder``. Returns its path."""
    past = Past(url=url.rstrip("/"), seconds=seconds, end_s=time.time())
    panels = board_json(board)["panels"]
    num_lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * _CELL_INCH[0], num_lines * _CELL_INCH[1]), facecolor="#f4f5f5")
    for panel in panels:
        axes = figure.add_axes(_place(panel, num_lines))
        axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
        _DRAWERS[panel["type"]](axes, panel, past)
    path = folder / f"{Path(board.file_name).stem}.png"
    figure.savefig(path, dpi=70)
    return path


def _place(panel: Json, num_lines: int) -> tuple[float, float, float, float]:
    """Of the axes in the figure, with room for title, names, numbers and legend."""
    grid = panel["gridPos"]
    margin = 2.6 if panel["type"] == "state-timeline" else 0.9
    left, top = (grid["x"] + margin) / COLUMNS, (grid["y"] + 0.8) / num_lines
    width, height = (grid["w"] - margin - 0.4) / COLUMNS, max(grid["h"] - 2.9, 0.2) / num_lines
    return left, 1 - top - height, width, height


def _lines_of(panel: Json, past: Past) -> Iterator[Line]:
    for target in panel["targets"]:
        yield from past.lines(target)


def _draw_lines(axes: Axes, panel: Json, past: Past) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    lines = list(_lines_of(panel, past))
    if defaults["custom"]["stacking"]["mode"] == "normal" and lines:
        values = np.nan_to_num(np.array([line.values for line in lines]))
        axes.stackplot(past.moments, values, labels=[line.name for line in lines], alpha=0.6)
    else:
        for line in lines:
            axes.plot(past.moments, line.values, linewidth=1, label=line.name)
    _finish(axes, panel, past, has_series=bool(lines))
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))


def _finish(axes: Axes, panel: Json, past: Past, *, has_series: bool) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.tick_params(labelsize=7)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.yaxis.set_major_formatter(PercentFormatter(1) if unit == "percentunit" else EngFormatter(_UNITS.get(unit, "")))
    if has_series:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=4, fontsize=6, frameon=False)
    _mark_time(axes, past, has_series=has_series)


def _mark_time(axes: Axes, past: Past, *, has_series: bool) -> None:
    axes.set_xlim(-past.seconds, 0)
    if not has_series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="#888888")


def _draw_number(axes: Axes, panel: Json, past: Past) -> None:
    axes.set_axis_off()
    shown = [_number(panel, line) for line in _lines_of(panel, past)]
    for index, (text, colour) in enumerate(shown or [("no data", "#888888")]):
        size = 18 if len(text) < 12 and len(shown) == 1 else 9
        height = 0.5 if len(shown) == 1 else 1 - (index + 0.5) / max(len(shown), 1)
        axes.text(0.02, height, text, transform=axes.transAxes, fontsize=size, color=colour, va="center")


def _number(panel: Json, line: Line) -> tuple[str, str]:
    if panel["options"]["textMode"] == "name":
        return line.name, "#333333"
    value = next((value for value in reversed(line.values) if math.isfinite(value)), math.nan)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    text = f"{value:.2%}" if unit == "percentunit" else f"{value:.4g}{_UNITS.get(unit, '')}"
    return (f"{line.name}: {text}" if len(panel["targets"]) > 1 else text), _threshold_colour(panel, value)


def _threshold_colour(panel: Json, value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    colours: list[str] = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _NAMES.get(colours[-1], colours[-1])


def _draw_states(axes: Axes, panel: Json, past: Past) -> None:
    lines = list(_lines_of(panel, past))
    mappings = panel["fieldConfig"]["defaults"]["mappings"]
    states = mappings[0]["options"] if mappings else {}
    for row, line in enumerate(lines):
        for moment, value in zip(past.moments, line.values, strict=True):
            if math.isfinite(value):
                known = states.get(f"{value:g}")
                colour = _NAMES.get(known["color"], known["color"]) if known else _threshold_colour(panel, value)
                axes.barh(row, past.step_s, left=moment, height=0.85, color=colour)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=7)
    axes.invert_yaxis()
    _mark_time(axes, past, has_series=bool(lines))


def _draw_heatmap(axes: Axes, panel: Json, past: Past) -> None:
    """Grafana takes the differences of the cumulative buckets too."""
    lines = sorted(_lines_of(panel, past), key=lambda line: float(line.labels["le"]))
    cumulative = np.nan_to_num(np.array([line.values for line in lines]))
    cells = np.diff(cumulative, axis=0, prepend=0)
    if (cells > 0).any():
        shown = np.where(cells > 0, cells, np.nan)
        axes.pcolormesh(past.moments, range(len(lines)), shown, cmap=colormaps["Blues"], norm=LogNorm())
    _mark_time(axes, past, has_series=bool(lines))
    axes.set_yticks(range(0, len(lines), 3), [line.labels["le"] for line in lines[::3]], fontsize=7)


def _draw_row(axes: Axes, panel: Json, past: Past) -> None:
    axes.set_axis_off()


def _draw_text(axes: Axes, panel: Json, past: Past) -> None:
    axes.set_axis_off()
    axes.text(0, 1, panel["options"]["content"][:4000], fontsize=6, va="top", transform=axes.transAxes)


_DRAWERS: dict[str, Callable[[Axes, Json, Past], None]] = {
    "timeseries": _draw_lines,
    "stat": _draw_number,
    "state-timeline": _draw_states,
    "heatmap": _draw_heatmap,
    "row": _draw_row,
    "text": _draw_text,
}
