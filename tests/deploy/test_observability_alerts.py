"""Every alert fires when it should, not before, and never on an idle, busy or draining server (promtool)."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.observability.alerts import ALERTS
from tests.deploy.alert_cases import BUSY, FIRING, QUIET, STEP_S, Case, Series
from tests.deploy.expressions import RULES
from tests.deploy.real_prometheus import promtool

pytestmark = pytest.mark.slow

BY_NAME = {alert.name: alert for alert in ALERTS}


def run(folder: Path, series: Series, **tests: Any) -> str:
    """Returns what promtool found wrong."""
    unit = {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        **tests,
    }
    content = {"rule_files": [str(path) for path in RULES], "evaluation_interval": f"{STEP_S}s", "tests": [unit]}
    (folder / "tests.json").write_text(json.dumps(content))
    answer = promtool("test", "rules", folder / "tests.json")
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr


def test_promtool_accepts_the_rules() -> None:
    answer = promtool("check", "rules", *RULES)
    assert answer.returncode == 0, answer.stderr


def test_every_alert_has_a_case() -> None:
    assert sorted(FIRING) == sorted(BY_NAME)


@pytest.mark.parametrize("name", sorted(FIRING))
def test_it_fires_when_it_should_and_not_before(name: str, tmp_path: Path) -> None:
    case = FIRING[name]
    checks = [{"eval_time": case.at, "alertname": name, "exp_alerts": [expected(name, case)]}]
    if case.not_yet is not None:
        checks.append({"eval_time": case.not_yet, "alertname": name, "exp_alerts": []})
    series = case.series if case.without_server else BUSY | case.series
    assert not run(tmp_path, series, alert_rule_test=checks)


def expected(name: str, case: Case) -> dict[str, Any]:
    alert = BY_NAME[name]
    return {
        "exp_labels": {"severity": alert.severity.value, **dict(case.labels)},
        "exp_annotations": {**alert.annotations, "description": case.description},
    }


NEVER_FIRED = [{"expr": 'count_over_time(ALERTS{alertstate="firing"}[2h])', "eval_time": "1h", "exp_samples": []}]


@pytest.mark.parametrize("name", QUIET)
def test_nothing_ever_fires_on_a_server_that_is(name: str, tmp_path: Path) -> None:
    assert not run(tmp_path, QUIET[name], promql_expr_test=NEVER_FIRED)


def test_that_check_sees_what_fires(tmp_path: Path) -> None:
    found = run(tmp_path, BUSY | FIRING["GpuXid"].series, promql_expr_test=NEVER_FIRED)
    assert 'alertname="GpuXid"' in found
