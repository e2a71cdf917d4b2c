"""The panels a dashboard is made of: records, and the JSON that Grafana reads.

Knows the shapes of Grafana's panels and no metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_uppercase
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE = "green", "yellow", "orange", "red", "blue", "purple"
GREY, DARK = "#8e8e8e", "#3d3d3d"


class Kind(StrEnum):
    """How a panel shows its series."""

    LINES = "timeseries"
    NUMBER = "stat"
    STATES = "state-timeline"
    HEATMAP = "heatmap"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """From this value on, this colour; None is the lowest."""

    at: float | None
    colour: str


PLAIN = (Step(at=None, colour=BLUE),)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a dashboard; 24 columns make a row."""

    title: str
    description: str
    kind: Kind = Kind.LINES
    queries: tuple[Query, ...] = ()
    unit: str = "none"
    width: int = 8
    height: int = 8
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    steps: tuple[Step, ...] = PLAIN
    states: Mapping[int, tuple[str, str]] | None = None
    """Text and colour of each value, for values that stand for states."""
    stacked: bool = False
    named: bool = False
    """A number's panel shows the name of the series in place of its value."""
    spark: bool = True
    """A number's panel shows the past behind it."""
    text: str = ""
    """Markdown of a text panel."""
    alert: str = ""
    """The alert whose runbook says what to do about what is seen here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A heading and the panels under it, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


def one(expr: str, legend: str = "") -> tuple[Query, ...]:
    """The queries of a panel that has one."""
    return (Query(expr=expr, legend=legend),)


def panel_json(panel: Panel, number: int, grid: Json, links: Sequence[Json]) -> Json:
    """What Grafana reads of one panel. ``number`` is its id."""
    common: Json = {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "gridPos": grid,
    }
    if links:
        common["links"] = list(links)
    if panel.kind is Kind.TEXT:
        return {**common, "options": {"mode": "markdown", "content": panel.text}}
    return {
        **common,
        "datasource": DATASOURCE,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind](panel),
    }


def _target(panel: Panel, query: Query, index: int) -> Json:
    return {
        "refId": ascii_uppercase[index],
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": "heatmap" if panel.kind is Kind.HEATMAP else "time_series",
        "instant": False,
        "legendFormat": "{{le}}" if panel.kind is Kind.HEATMAP else query.legend or "__auto",
        "range": True,
    }


def _defaults(panel: Panel) -> Json:
    limits = {"min": panel.low, "max": panel.high, "decimals": panel.decimals}
    return {
        "unit": panel.unit,
        **{name: value for name, value in limits.items() if value is not None},
        "color": {"mode": "palette-classic" if panel.kind is Kind.LINES else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"color": s.colour, "value": s.at} for s in panel.steps]},
        "mappings": _mappings(panel.states),
        "custom": _custom(panel),
    }


def _mappings(states: Mapping[int, tuple[str, str]] | None) -> list[Json]:
    if not states:
        return []
    options = {
        str(value): {"index": index, "text": text, "color": colour}
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]


def _custom(panel: Panel) -> Json:
    if panel.kind is Kind.STATES:
        return {"lineWidth": 0, "fillOpacity": 85, "spanNulls": False}
    if panel.kind is not Kind.LINES:
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 35 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if panel.steps == PLAIN else "dashed"},
    }


_BELOW: Json = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}


def _lines(panel: Panel) -> Json:
    return {"legend": {**_BELOW, "calcs": ["lastNotNull"]}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _number(panel: Panel) -> Json:
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "none" if panel.named else "value",
        "graphMode": "area" if panel.spark and not panel.named else "none",
        "textMode": "name" if panel.named else "auto",
        "justifyMode": "auto",
        "orientation": "auto",
    }


def _states(panel: Panel) -> Json:
    return {
        "showValue": "never",
        "mergeValues": True,
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": _BELOW,
        "tooltip": {"mode": "single", "sort": "none"},
    }


def _heatmap(panel: Panel) -> Json:
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5, "fill": "dark-blue"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
    }


_OPTIONS = {Kind.LINES: _lines, Kind.NUMBER: _number, Kind.STATES: _states, Kind.HEATMAP: _heatmap}
