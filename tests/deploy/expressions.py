"""Every PromQL expression of the dashboards and rules, and what can be wrong with one."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from deploy.observability.alerts import ALERTS
from tests.deploy.real_prometheus import ROOT, QueryRefused, RealPrometheus

CHART = ROOT / "deploy" / "helm" / "hiar-server"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = sorted((CHART / "rules").glob("*.yaml"))

PAST_S = 120
VARIABLES = {"$__rate_interval": "15s", "$__interval": "5s", "$__range": f"{PAST_S}s"}
_HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "on", "ignoring", "without"}
_GROUPING = r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)"


@dataclass(frozen=True)
class Expression:
    where: str
    expr: str
    legend_labels: frozenset[str] = field(default_factory=frozenset)
    needs_series: bool = True
    """An alert's expression has none while all is well."""


def of_dashboards() -> Iterator[Expression]:
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in panels_of(board):
            for target in panel.get("targets", ()):
                legend = frozenset(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
                yield Expression(f"{path.stem} / {panel['title']}", target["expr"], legend)
        yield from _of_variables(path.stem, board)
        for annotation in board["annotations"]["list"]:
            yield Expression(f"{path.stem} / {annotation['name']}", annotation["expr"])


def _of_variables(where: str, board: Mapping[str, Any]) -> Iterator[Expression]:
    """``label_values`` is Grafana's, not PromQL; this is what it comes down to."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found, variable["definition"]
            yield Expression(
                f"{where} / ${variable['name']}", f"count by ({found[2]}) ({found[1]})", frozenset({found[2]})
            )


def of_rules() -> Iterator[Expression]:
    for rule in rules():
        yield Expression(rule.get("record") or rule["alert"], rule["expr"], needs_series="record" in rule)
    for alert in ALERTS:
        for condition in alert.conditions:
            is_absence = condition.looks_at.startswith("absent")
            yield Expression(f"what {alert.name} looks at", condition.looks_at, needs_series=not is_absence)


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def panels_of(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Those in collapsed rows too, and the rows."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def concrete(expr: str) -> str:
    """With what Grafana would put in place of its variables."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$(?:{\w+}|\w+)", ".*", expr)


def metric_names(expr: str) -> set[str]:
    """Names that the expression selects by."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", concrete(expr))
    bare = re.sub(_GROUPING, "", re.sub(r"\[[^\]]*\]|{[^}]*}", "", bare))
    return {name for name in re.findall(r"(?<!\w)[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", bare) if name.lower() not in _WORDS}


def known_names(prometheus: RealPrometheus) -> set[str]:
    """Names that the server has, whether or not anything was counted, and those of recording rules."""
    names = {rule["name"] for rule in prometheus.rules() if rule["type"] == "recording"}
    for name, kind in prometheus.metric_types().items():
        names |= _sample_names(name, kind)
    return names | {"ALERTS", "up"}


def _sample_names(family: str, kind: str) -> set[str]:
    """In OpenMetrics, a counter's family lacks the end of its name."""
    if kind == "histogram":
        return {family + suffix for suffix in _HISTOGRAM_SUFFIXES}
    if kind == "counter":
        return {family.removesuffix("_total") + "_total"}
    return {family, f"{family}_info"} if kind == "info" else {family}


def faults(prometheus: RealPrometheus, expression: Expression, known: set[str]) -> list[str]:
    """Everything that is wrong with one expression."""
    names = metric_names(expression.expr)
    found = [f"{expression.where}: no metric is called {name}" for name in sorted(names - known)]
    if not names:
        found.append(f"{expression.where}: no metric in {expression.expr}")
    try:
        prometheus.query(concrete(expression.expr))
        past = prometheus.query_range(concrete(expression.expr), PAST_S)
    except QueryRefused as error:
        return [*found, f"{expression.where}: {error}"]
    if expression.needs_series and not any(series.says_something for series in past):
        found.append(f"{expression.where}: nothing comes of {expression.expr}")
    nameless = [label for label in expression.legend_labels if past and not any(label in s.labels for s in past)]
    return [*found, *(f"{expression.where}: no series has the label {label} of its legend" for label in nameless)]
