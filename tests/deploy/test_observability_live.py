"""Every expression of every panel, rule and alert gives series from a real server, by a real Prometheus."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.observability.preview import draw
from deploy.observability.viewers import VIEWERS
from tests.deploy.expressions import PAST_S, Expression, faults, known_names, of_dashboards, of_rules
from tests.deploy.observed_server import observed_server
from tests.deploy.real_prometheus import RealPrometheus, program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.in_time]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPrometheus]:
    program("prometheus")
    with observed_server(tmp_path_factory.mktemp("prometheus")) as watched:
        yield watched


@pytest.fixture(scope="module")
def known(prometheus: RealPrometheus) -> set[str]:
    return known_names(prometheus)


def test_every_expression_gives_series_of_metrics_that_exist(prometheus: RealPrometheus, known: set[str]) -> None:
    expressions = {each.expr: each for each in (*of_dashboards(), *of_rules())}.values()
    found = [fault for each in expressions for fault in faults(prometheus, each, known)]
    assert not found, "\n".join(found)


def test_every_rule_can_be_worked_out(prometheus: RealPrometheus) -> None:
    rules = prometheus.rules()
    assert rules and not [rule for rule in rules if rule["health"] != "ok"]


def test_a_dashboard_can_be_drawn(prometheus: RealPrometheus, tmp_path: Path) -> None:
    picture = draw(VIEWERS, tmp_path, prometheus.url, PAST_S)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("sum(rate(hiar_blocks_lated_total[$__rate_interval]))", "no metric is called hiar_blocks_lated_total"),
        ("sum(hiar_videos_running_total)", "no metric is called hiar_videos_running_total"),
        ("sum(rate(hiar_block_interval_seconds[1m]))", "no metric is called hiar_block_interval_seconds"),
        ("hiar:video_lode", "no metric is called hiar:video_lode"),
        ("sum(rate(hiar_blocks_late_total[1m])", "parse error"),
        ("rate(hiar_blocks_late_total)", "parse error"),
        ('hiar_engine_state{state="reddy"}', "nothing comes of"),
        ('sum by (pod) (hiar_videos_running{pod=~"$namespace"})', ""),
        ("sum by (pood) (hiar_videos_running)", "the label pod of its legend"),
        ("1 + 1", "no metric in"),
        ("histogram_quantile(0.5, sum by (pod) (rate(hiar_block_interval_seconds_bucket[1m])))", "nothing comes of"),
    ],
)
def test_a_broken_expression_is_found(prometheus: RealPrometheus, known: set[str], expr: str, says: str) -> None:
    found = faults(prometheus, Expression("a panel", expr, frozenset({"pod"})), known)
    assert [fault for fault in found if says in fault] or not (says or found)
