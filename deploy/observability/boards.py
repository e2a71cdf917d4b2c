"""Dashboards: rows of panels laid out on Grafana's grid, with the variables, links and annotations they share.

Knows no panel in particular.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.observability.panels import DATASOURCE, Json, Panel, Row, panel_json
from deploy.observability.promql import PREFIX, grown

COLUMNS = 24
SCHEMA_VERSION = 39
"""Of Grafana 10.2; later ones bring it up to date when they load it."""
RELIABILITY = "hiar-reliability"
"""The dashboard that holds the runbooks."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label of a metric."""

    name: str
    metric: str
    matchers: str = ""

    @property
    def query(self) -> str:
        """What Grafana asks for."""
        return f"label_values({PREFIX}{self.metric}{self.matchers}, {self.name})"


NAMESPACE = Variable(name="namespace", metric="videos_running")
POD = Variable(name="pod", metric="videos_running", matchers='{namespace=~"$namespace"}')


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard. ``uid`` is part of its address and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = (NAMESPACE, POD)

    @property
    def file_name(self) -> str:
        """Where it is kept."""
        return f"{self.uid.removeprefix('hiar-')}.json"


def board_json(board: Board) -> Json:
    """What Grafana reads."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": ["hiar"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource_variable(), *map(_label_variable, board.variables)]},
        "annotations": {"list": [_restarts()]},
        "links": [_other_boards()],
        "panels": list(_laid_out(board.rows)),
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[Json]:
    """Number the panels and place them: a row's heading, then its panels from left to right, then the next row."""
    y, number = 0, 0
    for row in rows:
        number += 1
        heading: Json = {"id": number, "type": "row", "title": row.title, "collapsed": row.collapsed, "panels": []}
        heading["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed, end = _placed(row.panels, y + 1, number + 1)
        number += len(placed)
        y = y + 1 if row.collapsed else end
        yield {**heading, "panels": placed if row.collapsed else []}
        yield from () if row.collapsed else placed


def _placed(panels: Sequence[Panel], top: int, number: int) -> tuple[list[Json], int]:
    """Place the panels of a row. Returns them and the line below."""
    placed, x, y, line = [], 0, top, 0
    for offset, panel in enumerate(panels):
        if x + panel.width > COLUMNS:
            x, y, line = 0, y + line, 0
        grid = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        placed.append(panel_json(panel, number + offset, grid, _links(panel)))
        x, line = x + panel.width, max(line, panel.height)
    return placed, y + line


def _links(panel: Panel) -> list[Json]:
    if not panel.alert:
        return []
    return [{"title": f"Runbook of {panel.alert}", "url": f"/d/{RELIABILITY}?{_KEEP}", "targetBlank": True}]


_KEEP = "${datasource:queryparam}&${namespace:queryparam}&${pod:queryparam}"


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "options": [],
        "current": {},
    }


def _label_variable(variable: Variable) -> Json:
    """All by default; ``.*`` also matches series that lack the label, as outside Kubernetes."""
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "regex": "",
        "hide": 0,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _restarts() -> Json:
    return {
        "name": "Engine restarts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": f"{grown('engine_restarts_total', by='pod')} > 0",
        "step": "",
        "titleFormat": "Worker group replaced",
        "textFormat": "{{pod}}",
        "useValueForTime": False,
    }


def _other_boards() -> Json:
    return {
        "title": "HiAR",
        "type": "dashboards",
        "tags": ["hiar"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
