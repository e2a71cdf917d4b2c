"""Dashboards and rules: what is checked in is what is generated, and Grafana can take it as it is."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.observability.__main__ import BOARDS, outputs
from deploy.observability.alerts import ALERTS
from deploy.observability.boards import COLUMNS
from server.metrics.families import Families
from server.metrics.gpu import GpuCollector
from tests.deploy.expressions import DASHBOARDS, RULES, concrete, metric_names, of_dashboards, panels_of, rules
from tests.deploy.real_prometheus import ROOT

Json = dict[str, Any]

FILES = {path: json.loads(path.read_text()) for path in DASHBOARDS}
BY_FILE = pytest.mark.parametrize("board", FILES.values(), ids=[path.stem for path in FILES])
DRAWN = ("timeseries", "stat", "state-timeline", "heatmap")


def test_what_is_checked_in_is_what_is_generated() -> None:
    generated = dict(outputs())
    kept = {path.relative_to(ROOT) for path in (*DASHBOARDS, *RULES)}
    assert kept == {path for path in generated if path.suffix in {".json", ".yaml"}}
    stale = [path for path, text in generated.items() if (ROOT / path).read_text() != text]
    assert not stale, "run python -m deploy.observability"


def test_addresses_of_dashboards_are_fixed_and_differ() -> None:
    assert {path.stem: board["uid"] for path, board in FILES.items()} == {
        "viewers": "hiar-viewers",
        "pipeline": "hiar-pipeline",
        "capacity": "hiar-capacity",
        "reliability": "hiar-reliability",
    }


@BY_FILE
def test_a_dashboard_needs_no_import(board: Json) -> None:
    """Whatever Prometheus the viewer chooses: nothing names one, and Grafana asks for nothing."""
    assert "__inputs" not in board and "__requires" not in board and "id" not in board
    assert board["schemaVersion"] >= 39
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names[:3] == ["datasource", "namespace", "pod"]
    assert board["templating"]["list"][0]["type"] == "datasource"
    sources = [found["datasource"] for found in walk(board) if "datasource" in found]
    assert sources and all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def walk(value: object) -> list[Json]:
    """Every object inside, from the outside in."""
    if isinstance(value, dict):
        return [value, *itertools.chain.from_iterable(map(walk, value.values()))]
    return list(itertools.chain.from_iterable(map(walk, value))) if isinstance(value, list) else []


@BY_FILE
def test_panels_have_their_own_ids_and_places(board: Json) -> None:
    ids = [panel["id"] for panel in panels_of(board)]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        cells = set(cells_of(panel["gridPos"]))
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert all(0 <= x < COLUMNS for x, _ in cells), panel["title"]
        taken |= cells


def cells_of(grid: Json) -> list[tuple[int, int]]:
    columns, lines = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
    return list(itertools.product(columns, lines))


@BY_FILE
def test_panels_say_what_they_show(board: Json) -> None:
    for panel in panels_of(board):
        if panel["type"] in DRAWN:
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            refs = [target["refId"] for target in panel["targets"]]
            assert refs and len(refs) == len(set(refs)), panel["title"]
        else:
            assert panel["type"] in {"row", "text"}


def test_expressions_follow_the_choices_of_the_viewer() -> None:
    """The time span by ``$__rate_interval`` or ``$__range``; namespace and pod by the variables, in every selector."""
    known = {variable.name for board in BOARDS for variable in board.variables} | {"__rate_interval", "__range"}
    for expression in of_dashboards():
        if "/ $" in expression.where:  # a variable itself
            continue
        spans = re.findall(r"\[([^\]]*)\]", re.sub(r'"[^"]*"', "", expression.expr))
        assert set(spans) <= {"$__rate_interval", "$__range"}, expression
        selectors = re.findall(r"(?:hiar[_:][\w:]+|process_\w+|ALERTS)({[^}]*})?", expression.expr)
        assert selectors, expression
        assert all('namespace=~"$namespace' in each and 'pod=~"$pod' in each for each in selectors), expression
        assert set(re.findall(r"\$(\w+)", expression.expr)) <= known, expression


def test_every_family_is_on_a_dashboard() -> None:
    shown = {name for expression in of_dashboards() for name in metric_names(expression.expr)}
    collected = (*Families(1).registry.collect(), *GpuCollector().collect())
    forgotten = {family.name for family in collected} - {base(name) for name in shown}
    assert not forgotten


def base(sample: str) -> str:
    return re.sub(r"_(total|bucket|sum|count)$", "", sample)


def test_links_to_runbooks_lead_to_one() -> None:
    names = {alert.name for alert in ALERTS}
    titles = [
        link["title"] for board in FILES.values() for panel in panels_of(board) for link in panel.get("links", ())
    ]
    linked = {title.removeprefix("Runbook of ") for title in titles}
    assert linked and linked <= names
    (runbooks,) = (panel for panel in panels_of(FILES[reliability()]) if panel["type"] == "text")
    assert set(re.findall(r"^### (\w+)$", runbooks["options"]["content"], re.MULTILINE)) == names


def reliability() -> Path:
    return next(path for path in FILES if path.stem == "reliability")


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert all(notes[key].strip() for key in ("summary", "description", "runbook"))
        assert notes["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_records_are_named_by_our_prefix_and_used() -> None:
    records = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for expression in of_dashboards() for name in metric_names(expression.expr)}
    used |= {name for rule in rules() for name in metric_names(rule["expr"])}
    assert records and records <= used and all(name.startswith("hiar:") for name in records)


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (pod, le) (rate(a_bucket{x="b_total"}[5m]))', {"a_bucket"}),
        ("histogram_quantile(0.5, sum(a) by (le)) > bool 2 and on (pod) b unless c offset 5m", {"a", "b", "c"}),
        ("time() - max(a) * 1e-9 or absent(hiar:x:rate1m)", {"a", "hiar:x:rate1m"}),
        ("a / ignoring(x) group_left(y) b == Inf", {"a", "b"}),
        ("1 + 2", set()),
    ],
)
def test_names_are_found_in_an_expression(expr: str, names: set[str]) -> None:
    assert metric_names(expr) == names


def test_variables_are_replaced_in_an_expression() -> None:
    assert concrete('rate(a{pod=~"$pod"}[$__rate_interval])') == 'rate(a{pod=~".*"}[15s])'
