"""Values as operators give them: nothing, numbers, words that YAML takes for something else, a chart within a chart."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from tests.deploy import chart
from tests.deploy.chart import CHART, PROFILES, Rendered, render, values_of
from tests.deploy.chart_link_checks import LINK_CHECKS
from tests.deploy.chart_pod_checks import POD_CHECKS
from tests.deploy.chart_schemas import NEWEST, faults
from tests.deploy.test_chart_values import document, nested

KEYS = {"/".join(key.path): key for key in document.described_keys((CHART / "values.yaml").read_text())}
PATHS = sorted({"/".join(path.split("/")[:depth]) for path in KEYS for depth in range(1, path.count("/") + 2)})
PASSED_ON = [path for path, key in KEYS.items() if key.can_be_null]
ODD_NAMES = ["1234", "0x1f", "2026-11-30", "true", "null"]


@pytest.fixture(scope="module")
def default() -> Rendered:
    return render({})


@pytest.mark.parametrize("path", PATHS)
def test_null_is_refused_by_name_or_means_none(default: Rendered, path: str) -> None:
    above, _, name = path.rpartition("/")
    if path not in PASSED_ON:
        with pytest.raises(helm_python.HelmValuesError, match=rf"at '/?{above}': missing property '{name}'"):
            render(nested(path, None))
        return
    made = render(nested(path, None))
    assert made.objects == default.objects or (isinstance(KEYS[path].default, dict) and faults(made, NEWEST) == [])


def test_null_means_none_where_everything_is_on() -> None:
    values = values_of("everything-on")
    for path in PASSED_ON:
        inner, (*above, name) = values, path.split("/")
        for key in above:
            inner = inner.setdefault(key, {})
        if isinstance(KEYS[path].default, dict):
            inner[name] = None
    assert faults(render(values), NEWEST) == []


@pytest.mark.parametrize(
    ("profile", "name"), [*((one, "1e3") for one in PROFILES), *(("multinode-lws", name) for name in ODD_NAMES)]
)
def test_a_release_and_a_namespace_with_an_odd_name(monkeypatch: pytest.MonkeyPatch, profile: str, name: str) -> None:
    monkeypatch.setattr(chart, "RELEASE", name)
    monkeypatch.setattr(chart, "NAMESPACE", name)
    monkeypatch.setattr("tests.deploy.chart_link_checks.NAMESPACE", name)
    made = render(values_of(profile))
    assert faults(made, NEWEST) == []
    assert [fault for check in (*POD_CHECKS, *LINK_CHECKS) for fault in check(made)] == []
    assert list(_not_text(made.objects)) == []
    assert all(item["metadata"]["name"][0].isalpha() for item in made.of("Service"))


@pytest.mark.parametrize("word", ["true", "null", "on", "y"])
def test_a_name_that_yaml_takes_for_something_else(word: str) -> None:
    assert faults(render({"fullnameOverride": word, "nameOverride": word}), NEWEST) == []


def test_numbers_as_the_names_of_others_objects() -> None:
    secret = {"name": "1234"}
    made = render(
        {
            "image": {"repository": "1234", "tag": "1e3", "pullSecrets": [secret]},
            "auth": {"keysSecret": {"name": "1234", "key": "1"}},
            "durability": {
                "volume": {"kind": "existing", "existingClaim": "1234"},
                "store": "s3://1",
                "storeSecret": secret,
                "databaseSecret": {"name": "1234", "key": "1"},
            },
            "model": {
                "name": "13",
                "volume": {
                    "kind": "shared",
                    "storageClassName": "1234",
                    "size": "100000000000",
                    "accessModes": ["ReadWriteMany"],
                },
                "download": {"source": "1/2", "revision": "1", "tokenSecret": {"name": "1234", "key": "1"}},
            },
            "storage": {"tmpSize": "1000000000"},
            "ingress": {"enabled": True, "className": "1234", "hosts": ["1.2"]},
            "autoscaling": {"kind": "keda", "keda": {"serverAddress": "http://1", "authenticationRef": "1234"}},
            "serviceAccount": {"create": False, "name": "1234"},
            "priorityClassName": "1234",
            "runtimeClassName": "1234",
            "podLabels": {"team": "1234"},
            "podAnnotations": {"port": "9000"},
            "nodeSelector": {"gpus": "8"},
        }
    )
    assert faults(made, NEWEST) == [] and list(_not_text(made.objects)) == []


def test_numbers_and_booleans_in_the_environment_are_text() -> None:
    given: list[dict[str, Any]] = [
        {"name": "THREADS", "value": 2},
        {"name": "BYTES", "value": 1_000_000_000},
        {"name": "PART", "value": 0.5},
        {"name": "DEBUG", "value": True},
        {"name": "WORD", "value": "on"},
        {"name": "NOTHING"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    download = {"source": "a/b", "extraEnv": given}
    model = {"name": "m", "volume": {"kind": "existing", "existingClaim": "c"}, "download": download}
    made = render({"extraEnv": given, "model": model})
    assert faults(made, NEWEST) == []
    (server,), (job,) = (made.of(kind) for kind in ("StatefulSet", "Job"))
    for pods in (server, job):
        env = pods["spec"]["template"]["spec"]["containers"][0]["env"][-len(given) :]
        assert [item.get("value") for item in env] == ["2", "1000000000", "0.5", "true", "on", None, None]
        assert env[-1] == given[-1]


def test_gpus_by_claims_are_not_asked_for_twice() -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    values = {"resources": {"claims": [{"name": "gpu"}]}, "resourceClaims": claims, "devices": {"kind": "cuda"}}
    asked = {name: _server(render(values | {"devices": {"kind": "cuda", "gpuResource": name}})) for name in ("", "x/y")}
    assert asked[""]["resourceClaims"] == claims
    assert {name: "x/y" in spec["containers"][0]["resources"]["limits"] for name, spec in asked.items()} == {
        "": False,
        "x/y": True,
    }
    assert faults(render(values), NEWEST) == []


def test_a_spread_of_ones_own_is_left_as_it_is() -> None:
    own = {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own}
    made = render({"topologySpreadConstraints": [spread]})
    assert _server(made)["topologySpreadConstraints"] == [spread]


@pytest.mark.parametrize("enabled", [True, False])
def test_it_can_be_left_out_by_a_parent_chart(tmp_path: Path, enabled: bool) -> None:
    """Which hands it its condition and what is global."""
    shutil.copytree(CHART, tmp_path / "charts" / "hiar-server")
    needs = {"name": "hiar-server", "version": "*.*.*", "condition": "hiar-server.enabled", "repository": ""}
    (tmp_path / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "studio", "version": "1.0.0", "dependencies": [needs]})
    )
    (tmp_path / "values.yaml").write_text("{}")
    with helm_python.Chart.load(tmp_path) as parent:
        given = {"hiar-server": {"enabled": enabled}, "global": {"imageRegistry": "registry.example.com"}}
        files = parent.render(given, name="studio", namespace="studio")
    assert any("StatefulSet" in text for text in files.values()) is enabled


def _server(made: Rendered) -> dict[str, Any]:
    spec: dict[str, Any] = made.of("StatefulSet")[0]["spec"]["template"]["spec"]
    return spec


def _not_text(item: Any, path: str = "") -> Iterator[str]:
    """What is no string where Kubernetes has a map of strings, in kinds of others too."""
    if isinstance(item, dict):
        for key, value in item.items():
            if key in {"labels", "matchLabels", "annotations", "nodeSelector"} and isinstance(value, dict):
                yield from (f"{path}/{key}/{name}" for name, text in value.items() if not isinstance(text, str))
            yield from _not_text(value, f"{path}/{key}")
    elif isinstance(item, list | tuple):
        for value in item:
            yield from _not_text(value, path)
