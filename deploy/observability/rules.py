"""Recording and alert rules: records, the groups that Prometheus reads, and the runbooks as Markdown.

Knows no rule in particular.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

RUNBOOKS = "docs/operations.md"
PER_POD = "sum by (namespace, pod)"
"""Rules hold for each server, so that one bad server of many is not hidden by the others."""
WHERE = "{{ $labels.namespace }}/{{ $labels.pod }}"
"""Names the server in a description."""


class Severity(StrEnum):
    """Who is told.

    ``page`` wakes somebody up: viewers are affected and nothing mends itself. ``ticket`` waits for working hours,
    ``info`` is only shown.
    """

    PAGE = "page"
    TICKET = "ticket"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Record:
    """An expression that is worked out once and kept under a name of its own."""

    name: str
    expr: str


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is looked at, and when it is bad. An empty ``bad`` means that there being a series is bad."""

    looks_at: str
    bad: str

    @property
    def expr(self) -> str:
        """PromQL that has series only where it is bad."""
        return f"{self.looks_at} {self.bad}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Alert:
    """All ``conditions`` hold for ``lasting``, on the same labels."""

    name: str
    severity: Severity
    conditions: tuple[Condition, ...]
    lasting: str
    summary: str
    description: str
    runbook: tuple[str, ...]
    """What to do, a sentence a step."""

    @property
    def expr(self) -> str:
        """PromQL of the rule."""
        return "\nand ".join(condition.expr for condition in self.conditions)

    @property
    def annotations(self) -> dict[str, str]:
        """What a message about it says."""
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook": "\n".join(f"{number}. {step}" for number, step in enumerate(self.runbook, 1)),
            "runbook_url": f"{RUNBOOKS}#{self.name.lower()}",
        }


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are worked out together, in order."""

    name: str
    rules: Sequence[Record | Alert]


def rules_yaml(groups: Sequence[Group], heading: str) -> str:
    """The rule file; ``groups`` at its top, as Prometheus and a PrometheusRule's spec have it."""
    content = {"groups": [{"name": g.name, "rules": [_rule(rule) for rule in g.rules]} for g in groups]}
    return f"# {heading}\n" + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def runbooks_markdown(alerts: Sequence[Alert]) -> str:
    """A section for each alert, under the anchor that its ``runbook_url`` names."""
    return "".join(_sections(alerts))


def _rule(rule: Record | Alert) -> dict[str, Any]:
    if isinstance(rule, Record):
        return {"record": rule.name, "expr": rule.expr}
    return {
        "alert": rule.name,
        "expr": rule.expr,
        **({"for": rule.lasting} if rule.lasting else {}),
        "labels": {"severity": rule.severity.value},
        "annotations": rule.annotations,
    }


def _sections(alerts: Sequence[Alert]) -> Iterator[str]:
    for alert in alerts:
        lasting = f" for {alert.lasting}" if alert.lasting else ""
        yield f"### {alert.name}\n\n"
        yield f"*{alert.severity.value.capitalize()}.* {alert.summary}. Fires when this holds{lasting}:\n\n"
        yield f"```promql\n{alert.expr}\n```\n\n"
        yield "".join(f"{number}. {step}\n" for number, step in enumerate(alert.runbook, 1)) + "\n"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a change of them reads as one."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
