"""Every profile of the chart: what Helm makes of it is valid, and fits together and with the server."""

import json
import re
import tarfile
from pathlib import Path

import helm_python
import pytest
import yaml

from server.http.hosts import KnownHosts
from server.settings import Settings
from tests.deploy.chart import CHART, NAMESPACE, PROFILES, Rendered, pods_of, render, values_of
from tests.deploy.chart_link_checks import LINK_CHECKS
from tests.deploy.chart_pod_checks import POD_CHECKS, settings_of
from tests.deploy.chart_schemas import NEWEST, OLDEST, PACKAGES, faults, generated, kept

CHECKS = (*POD_CHECKS, *LINK_CHECKS)


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def rendered(profile: str) -> Rendered:
    return render(values_of(profile))


def test_helm_finds_nothing_to_object_to(profile: str) -> None:
    for kube_version in (f"{OLDEST}.0", f"{NEWEST}.0"):
        found = helm_python.lint(CHART, values_of(profile), strict=True, kube_version=kube_version)
        assert found["errors"] == []
        assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_are_valid(rendered: Rendered, version: str) -> None:
    assert faults(rendered, version) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKAGES)
def test_a_kept_schema_is_that_of_its_package(kind: str) -> None:
    assert kept(kind) == generated(kind)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_objects_fit(rendered: Rendered, check) -> None:  # type: ignore[no-untyped-def]
    assert list(check(rendered)) == []


def test_without_values_the_small_model_runs_as_the_server_would_by_itself() -> None:
    (pods,) = [pods for pods in pods_of(render({})) if pods.role == "server"]
    found = settings_of(pods)
    changed = {name for name, value in vars(Settings()).items() if getattr(found, name) != value}
    assert changed == {"host", "metrics_port", "insecure", "allowed_hosts", "data"}


def test_examples_of_the_readme_fit() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    examples = [yaml.safe_load(block) for block in blocks if "devices:" in block]
    assert len(examples) == 4
    for example in examples:
        made = render(example)
        assert faults(made, NEWEST) == []
        assert [fault for check in CHECKS for fault in check(made)] == []


def test_profiles_cover_every_template() -> None:
    """No template is left out of what is checked."""
    templates = {file.name for file in CHART.glob("templates/**/*.yaml")}
    used = set()
    with helm_python.Chart.load(CHART) as chart:
        for name in PROFILES:
            files = chart.render(values_of(name), name="r", namespace="n")
            used |= {file.rpartition("/")[2] for file, text in files.items() if "kind:" in text}
    assert used == templates


def test_the_packaged_chart_is_the_same(tmp_path: Path) -> None:
    """Nothing that it needs is ignored."""
    archive = Path(helm_python.package(CHART, destination=tmp_path))
    values = values_of("everything-on")
    assert render(values, archive) == render(values)
    with tarfile.open(archive) as packed:
        assert not [name for name in packed.getnames() if "/ci/" in name]


def test_dashboards_arrive_as_they_are() -> None:
    maps = render(values_of("everything-on")).of("ConfigMap")
    arrived = {name.removeprefix("live-"): json.loads(text) for item in maps for name, text in item["data"].items()}
    assert arrived == {file.name: json.loads(file.read_text()) for file in CHART.glob("dashboards/*.json")}
    assert arrived


def test_rules_arrive_as_they_are() -> None:
    (rule,) = render(values_of("everything-on")).of("PrometheusRule")
    files = sorted(CHART.glob("rules/*.yaml"))
    assert rule["spec"]["groups"] == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert rule["spec"]["groups"]


def test_notes_name_what_to_do_next(rendered: Rendered) -> None:
    (workload,) = rendered.of("StatefulSet", "LeaderWorkerSet")
    kind, name = workload["kind"].lower(), workload["metadata"]["name"]
    assert f"{kind}/{name}" in rendered.notes
    assert "helm test -n studio video" in rendered.notes
    (service,) = [item for item in rendered.of("Service") if item["spec"].get("clusterIP") != "None"]
    port = service["spec"]["ports"][0]["port"]
    assert f"kubectl -n studio port-forward service/{service['metadata']['name']} 8000:{port}" in rendered.notes
    assert ("hiar-download" in str(rendered.objects)) == ("downloaded first" in rendered.notes)
    steady = rendered.values["topology"]["replicas"] == 1 and rendered.values["autoscaling"]["kind"] == "none"
    assert ("can steer it" in rendered.notes) != steady


def test_a_server_answers_to_every_name_that_leads_to_it(rendered: Rendered) -> None:
    (found,) = {settings_of(pods) for pods in pods_of(rendered) if pods.role == "server"}
    known = KnownHosts(found.host, found.allowed_hosts)
    services = [item["metadata"]["name"] for item in rendered.of("Service")]
    fronts = [rule.get("host", "any.example") for item in rendered.of("Ingress") for rule in item["spec"]["rules"]]
    fronts += [name for item in rendered.of("HTTPRoute") for name in item["spec"].get("hostnames", ["any.example"])]
    service = next(name for name in services if not name.endswith("-pods"))
    pods = [f"{item['metadata']['name']}-0.{item['metadata']['name']}" for item in rendered.of("LeaderWorkerSet")]
    pods += [f"{name}-0.{name}-pods" for name in services if rendered.of("StatefulSet") and f"{name}-pods" in services]
    assert pods
    for name in (service, *pods):
        for suffix in ("", f".{NAMESPACE}", f".{NAMESPACE}.svc", f".{NAMESPACE}.svc.cluster.local"):
            assert known.knows(name + suffix)
    assert all(known.knows(name) for name in ("10.1.2.3", "fd00::1", "localhost", *fronts))
    assert known.knows("evil.example") is ("any.example" in fronts)


def test_without_a_name_in_front_any_is_taken() -> None:
    (pods,) = [pods for pods in pods_of(render({"ingress": {"enabled": True}})) if pods.role == "server"]
    assert KnownHosts("0.0.0.0", settings_of(pods).allowed_hosts).knows("any.example")
