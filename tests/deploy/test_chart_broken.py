"""A chart that is broken in one place is found out by the check that is there for it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import helm_python
import pytest
import yaml

from tests.deploy.chart import CHART, Rendered, render, values_of
from tests.deploy.chart_link_checks import LINK_CHECKS
from tests.deploy.chart_pod_checks import POD_CHECKS
from tests.deploy.chart_schemas import NEWEST, OLDEST, faults

CHECKS: dict[str, Callable[[Rendered], Iterator[str]]] = {
    check.__name__: check for check in (*POD_CHECKS, *LINK_CHECKS)
}
POD, NAMES, SERVICE = "templates/_pod.tpl", "templates/_names.tpl", "templates/service.yaml"
POLICY, TEST = "templates/networkpolicy.yaml", "templates/tests/generate.yaml"


def broken(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the chart with one edit."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / file).read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
    (chart / file).write_text(text.replace(old, new))
    return chart


UNFIT = [
    ("settings", "cpu-demo", POD, 'join "," $devices', 'join ";" $devices'),
    ("settings", "everything-on", POD, 'HIAR_SIZES, value: {{ join ","', 'HIAR_SIZES, value: {{ join ";"'),
    ("settings", "everything-on", POD, "HIAR_KEYS", "HIAR_MODEL_KEYS"),
    ("volumes", "everything-on", POD, "mountPath: /keys", "mountPath: /secrets"),
    ("settings", "everything-on", POD, "HIAR_STORE", "HIAR_DATA"),
    ("volumes", "everything-on", POD, "mountPath: /data", "mountPath: /videos"),
    ("settings", "cpu-demo", POD, "server.leadTargetSeconds", "server.stageTimeoutSeconds"),
    ("settings", "everything-on", POD, "HIAR_DECODER", "HIAR_MODEL"),
    ("environment", "cpu-demo", POD, "HIAR_MAX_QUEUE", "HIAR_QUEUE_SIZE"),
    ("environment", "cpu-demo", POD, "CUDA_CACHE_PATH", "TRITON_CACHE_DIR"),
    ("environment", "cpu-demo", POD, "enableServiceLinks: false", "enableServiceLinks: true"),
    ("commands", "cpu-demo", POD, "[hiar-server]", "[hiar-serve]"),
    ("commands", "single-gpu", "templates/_download.tpl", 'list "hiar-download"', 'list "wget"'),
    ("commands", "single-gpu", "templates/_download.tpl", '"--to"', '"--into"'),
    ("commands", "cpu-demo", TEST, "--seconds", "--length"),
    ("waiting", "multinode-lws", "templates/_download.tpl", "/.complete ]", "/.done ]"),
    ("waiting", "single-gpu", POD, "initContainers:", "ephemeralContainers:"),
    ("gpus", "4+1-gpu", POD, "(int .Values.devices.count) -}}\n{{- $limits", "1 -}}\n{{- $limits"),
    ("gpus", "4+1-gpu", POD, 'printf "cuda:%d" $number', 'printf "cuda:%d" 0'),
    ("grace", "cpu-demo", POD, "add .preStopSleepSeconds .drainSeconds", "add .drainSeconds"),
    ("volumes", "cpu-demo", POD, "- {name: shm, emptyDir", "- {name: memory, emptyDir"),
    ("volumes", "cpu-demo", POD, "mountPath: /cache}", "mountPath: /caches}"),
    ("volumes", "4+1-gpu", POD, "mountPath: /models,", "mountPath: /data,"),
    ("volumes", "single-gpu", "templates/statefulset.yaml", '(list . "models"', '(list . "weights"'),
    ("volumes", "4+1-gpu", POD, "- {name: data, emptyDir", "- {name: jobs, emptyDir"),
    ("quantities", "cpu-demo", "values.yaml", "shmSize: 1Gi", "shmSize: 8Gi"),
    ("quantities", "cpu-demo", "values.yaml", 'requests: {cpu: "2", memory: 2Gi}', 'requests: {cpu: "2", memory: 8Gi}'),
    ("quantities", "cpu-demo", TEST, "memory: 512Mi", "memory: 512Mx"),
    ("images", "cpu-demo", NAMES, 'printf "%s%s" .Chart.AppVersion', 'printf "%s%s" "latest"'),
    ("images", "air-gapped", NAMES, '"%s@%s"', '"%s:%s"'),
    ("security", "cpu-demo", "values.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("security", "cpu-demo", "values.yaml", "runAsUser: 10001", "runAsUser: 0"),
    ("security", "cpu-demo", TEST, "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    ("names", "multinode-lws", NAMES, '{{ if eq .Values.topology.mode "lws" }}-group{{ end }}', ""),
    ("names", "everything-on", "templates/dashboards.yaml", '-{{ base $path | trimSuffix ".json" }}', ""),
    ("selectors", "cpu-demo", NAMES, "app.kubernetes.io/component: server", "app.kubernetes.io/component: web"),
    ("selectors", "cpu-demo", NAMES, "values: [server, node]", "values: [node]"),
    ("selectors", "multinode-lws", "templates/leaderworkerset.yaml", '"role" "node"', '"role" "server"'),
    ("selectors", "multinode-lws", POLICY, "app.kubernetes.io/component: download", "app.kubernetes.io/component: job"),
    ("selectors", "multinode-lws", SERVICE, "app.kubernetes.io/component: pods", "app.kubernetes.io/component: pod"),
    ("selectors", "air-gapped", POD, '"app.kubernetes.io/component" .role', '"app.kubernetes.io/component" "pods"'),
    ("ports", "cpu-demo", SERVICE, "targetPort: metrics", "targetPort: metric"),
    ("ports", "cpu-demo", SERVICE, "{name: metrics, port: {{ .Values.metrics.port }}", "{name: metrics, port: 9090"),
    ("ports", "cpu-demo", POD, "containerPort: {{ $values.metrics.port }}", "containerPort: {{ $values.server.port }}"),
    ("ports", "everything-on", "templates/ingress.yaml", "port: {name: http}", "port: {name: web}"),
    ("ports", "everything-on", "templates/httproute.yaml", "port: {{ .Values.service.port }}", "port: 8000"),
    ("ports", "everything-on", "templates/servicemonitor.yaml", "port: metrics", "port: prometheus"),
    ("policies", "cpu-demo", POLICY, "port: {{ .Values.server.port }}", "port: 80"),
    ("policies", "cpu-demo", POLICY, 'ternary (list (dict "namespaceSelector" dict)) list', "ternary list (list dict)"),
    ("policies", "air-gapped", POLICY, ".Values.durability.ports", ".Values.model.download.ports"),
    ("policies", "single-gpu", POLICY, "and $downloads $ownVolume", "and $downloads (not $ownVolume)"),
    ("policies", "multinode-lws", POLICY, "    - to:\n", "    - ports: [{port: 29500}]\n      to:\n"),
    ("probes", "cpu-demo", POD, "path: /readyz", "path: /ready"),
    ("probes", "cpu-demo", POD, "httpGet: {path: /readyz, port: http}", "httpGet: {path: /readyz, port: web}"),
    ("probes", "everything-on", "templates/servicemonitor.yaml", "path: /metrics", "path: /prometheus"),
    (
        "references",
        "cpu-demo",
        "templates/serviceaccount.yaml",
        'include "hiar.serviceAccount"',
        'include "hiar.headless"',
    ),
    ("references", "multinode-lws", "templates/persistentvolumeclaim.yaml", '"hiar.modelClaim"', '"hiar.fullname"'),
    (
        "references",
        "single-gpu",
        "templates/_download.tpl",
        "{{- toYaml $download.tokenSecret |",
        "{{- dict `name` `x` `key` `y` | toYaml |",
    ),
    ("references", "multinode-lws", POD, "name: {{ $store | quote }}", "name: store"),
    ("secrets", "multinode-lws", POD, "- name: HIAR_GROUP_TOKEN\n", "- name: HIAR_GROUP_TOKEN\n  value: open\n"),
    ("secrets", "everything-on", "dashboards/viewers.json", "{\n", '{\n  "password": "x",\n'),
    ("scaling", "everything-on", "templates/_autoscaling.tpl", "hiar_videos_waiting", "hiar_video_waiting"),
    (
        "scaling",
        "everything-on",
        "templates/_autoscaling.tpl",
        '(include "hiar.headless" .)',
        '(include "hiar.fullname" .)',
    ),
    ("scaling", "multinode-lws", "templates/_autoscaling.tpl", 'include "hiar.workload" .', '"server"'),
    ("scaling", "everything-on", "templates/statefulset.yaml", 'if eq .Values.autoscaling.kind "none"', "if true"),
]


@pytest.mark.parametrize(
    ("check", "profile", "file", "old", "new"), UNFIT, ids=[f"{case[0]}-{case[4]}" for case in UNFIT]
)
def test_what_does_not_fit_is_found(tmp_path: Path, check: str, profile: str, file: str, old: str, new: str) -> None:
    values = values_of(profile)
    if file == "dashboards/viewers.json":
        text = (CHART / file).read_text()
        old, new = text[:40], new + text[2:40]
    rendered = render(values, broken(tmp_path, file, old, new))
    assert list(CHECKS[check](rendered)) != []


def test_every_check_has_a_chart_that_fails_it() -> None:
    assert {case[0] for case in UNFIT} == set(CHECKS)


INVALID = [
    ("StatefulSet", "cpu-demo", POD, "sleep: {seconds", "sleep: {second"),
    (
        "StatefulSet",
        "cpu-demo",
        "templates/statefulset.yaml",
        "podManagementPolicy: Parallel",
        "podManagement: Parallel",
    ),
    ("Service", "cpu-demo", SERVICE, "publishNotReadyAddresses: true", "publishNotReadyAddresses: always"),
    (
        "NetworkPolicy",
        "cpu-demo",
        POLICY,
        "  policyTypes: [Ingress, Egress]\n  ingress:",
        "  types: [Ingress]\n  ingress:",
    ),
    ("Job", "everything-on", "templates/job-download.yaml", "backoffLimit: 10", "backOffLimit: 10"),
    ("LeaderWorkerSet", "multinode-lws", POD, "lifecycle:", "livecycle:"),
    ("LeaderWorkerSet", "multinode-lws", "templates/leaderworkerset.yaml", "    size:", "    replicas:"),
    ("LeaderWorkerSet", "multinode-lws", "templates/leaderworkerset.yaml", "LeaderCreated #", "WhenCreated #"),
    ("HorizontalPodAutoscaler", "multinode-lws", "templates/_autoscaling.tpl", "policies:", "policy:"),
    ("ServiceMonitor", "everything-on", "templates/servicemonitor.yaml", "interval: {{", "intervall: {{"),
    ("PrometheusRule", "everything-on", "templates/prometheusrule.yaml", "  groups:\n", "  group:\n"),
    (
        "ScaledObject",
        "everything-on",
        "templates/scaledobject.yaml",
        "threshold: {{ .targetLoad | quote }}",
        "threshold: 1",
    ),
    ("ScaledObject", "everything-on", "templates/scaledobject.yaml", "maxReplicaCount", "maxReplicas"),
    ("HTTPRoute", "everything-on", "templates/httproute.yaml", "backendRequest:", "backend:"),
]


@pytest.mark.parametrize(("kind", "profile", "file", "old", "new"), INVALID)
def test_what_is_invalid_is_found(tmp_path: Path, kind: str, profile: str, file: str, old: str, new: str) -> None:
    rendered = render(values_of(profile), broken(tmp_path, file, old, new))
    assert faults(replace(rendered, objects=tuple(rendered.of(kind))), NEWEST) != []


def test_the_oldest_kubernetes_is_the_one_that_the_chart_names() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"
    assert any("sleep" in fault for fault in faults(render({}), "1.28"))


def test_a_key_that_is_there_twice_is_found(tmp_path: Path) -> None:
    chart = broken(tmp_path, SERVICE, "  clusterIP: None\n", "  clusterIP: None\n  clusterIP: None\n")
    with pytest.raises(ValueError, match="clusterIP twice"):
        render({}, chart)


def test_text_that_is_no_yaml_is_found(tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        render({}, broken(tmp_path, SERVICE, "  clusterIP: None\n", "  clusterIP: [None\n"))


@pytest.mark.parametrize("folder", ["rules", "dashboards"])
def test_a_chart_without_what_is_asked_for_says_so(tmp_path: Path, folder: str) -> None:
    chart = broken(tmp_path, "Chart.yaml", "name: hiar-server", "name: hiar-server")
    shutil.rmtree(chart / folder)
    with pytest.raises(helm_python.HelmRenderError, match=f"no {folder}/"):
        render(values_of("everything-on"), chart)
