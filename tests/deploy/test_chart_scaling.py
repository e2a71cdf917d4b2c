"""What autoscalers ask gives the load of servers, worked out by Prometheus's own test tool."""

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import CHART, render, values_of
from tests.deploy.real_prometheus import promtool

SERIES = {
    # service, pod: running, waiting, slots; seconds of video made, and stalled, in 15 s
    ("live-pods", "live-0"): (2, 1, 2, 20, 4),  # full by its places, and slow
    ("live-pods", "live-1"): (1, 0, 2, 15, 0),
    ("live-pods", "live-2"): (0, 0, 0, 0, 0),  # has not started yet
    ("live-pods", "live-3"): (1, 0, 2, 9, 6),  # has a place, and is too slow for the one that runs
    ("live-pods", "live-4"): (1, 0, 2, 9, 0),  # makes less than plays because its viewer pauses
    ("live-pods", "live-5"): (1, 0, 2, 15, 1),  # keeps pace, and made up for something
    ("other-pods", "other-0"): (9, 9, 1, 15, 15),
}


LOAD = 4.0


def samples(folder: Path, expr: str, expected: dict[str, float]) -> str:
    """What promtool says of an expression that should give these values by label; nothing if it does."""
    gauges = ("hiar_videos_running", "hiar_videos_waiting", "hiar_video_slots")
    totals = ("hiar_video_generated_seconds_total", "hiar_stream_stalled_seconds_total")
    series = [
        {"series": f'{metric}{{namespace="studio",service="{service}",pod="{pod}"}}', "values": values}
        for (service, pod), numbers in SERIES.items()
        for metric, values in zip(
            (*gauges, *totals),
            (*(f"{value}x8" for value in numbers[:3]), *(f"0+{value}x8" for value in numbers[3:])),
            strict=True,
        )
    ]
    wanted = [{"labels": labels, "value": value} for labels, value in expected.items()]
    asked = {"expr": expr, "eval_time": "2m", "exp_samples": wanted}
    test = {"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": [asked]}]}
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    found = promtool("test", "rules", folder / "test.yaml")
    return "" if found.returncode == 0 else found.stdout + found.stderr


def keda_query() -> str:
    (scaled,) = render(values_of("everything-on")).of("ScaledObject")
    query: str = scaled["spec"]["triggers"][0]["metadata"]["query"]
    return query


def adapter_query() -> str:
    """Of the README, as the adapter would send it for the pods of a namespace."""
    (block,) = re.findall(r"```yaml\n(rules:\n  custom:.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    (rule,) = yaml.safe_load(block)["rules"]["custom"]
    assert rule["name"] == {
        "as": yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]["hpa"]["metricName"]
    }
    query: str = rule["metricsQuery"]
    return query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="studio",pod=~"live-.*"')


def test_keda_gets_the_summed_load_of_the_release(tmp_path: Path) -> None:
    assert samples(tmp_path, keda_query(), {"{}": LOAD}) == ""


def test_an_adapter_gets_the_load_of_each_pod(tmp_path: Path) -> None:
    loads = {"live-0": 1.5, "live-1": 0.5, "live-3": 1.0, "live-4": 0.5, "live-5": 0.5}
    assert samples(tmp_path, adapter_query(), {f'{{pod="{pod}"}}': load for pod, load in loads.items()}) == ""
    assert sum(loads.values()) == LOAD


@pytest.mark.parametrize(
    ("old", "new"),
    [("_waiting", "_queued"), ("live-pods", "live"), (" > 0", ""), ("0.95", "1.5"), ("_stalled", "_halted")],
)
def test_another_query_does_not(tmp_path: Path, old: str, new: str) -> None:
    assert old in keda_query()
    assert samples(tmp_path, keda_query().replace(old, new), {"{}": LOAD}) != ""
