"""Renders the chart with the real Helm engine and finds things in what comes out. Knows nothing of what is right."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "hiar-server"
PROFILES = sorted(file.stem for file in (CHART / "ci").glob("*.yaml"))
RELEASE, NAMESPACE = "video", "studio"

Object = dict[str, Any]


class _OneOfEach(yaml.CSafeLoader):
    """Refuses a mapping with the same key twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} twice in a mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Rendered:
    """What the chart makes of some values."""

    values: dict[str, Any]
    """With the chart's defaults."""
    objects: tuple[Object, ...]
    notes: str

    def of(self, *kinds: str) -> list[Object]:
        """Objects of these kinds."""
        return [item for item in self.objects if item["kind"] in kinds]


@dataclass(frozen=True)
class Pods:
    """Pods that are made from one template."""

    owner: str
    role: str
    """Their component: server, node, download or test."""
    labels: dict[str, str]
    spec: dict[str, Any]
    claims: tuple[str, ...] = ()
    """Volumes that each of them gets by a claim of its own."""
    rank: int = 0
    """Of a group: 0 for the first pod, 1 for all others."""

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers, those that run first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """Named ports."""
        return {port["name"]: port["containerPort"] for item in self.containers for port in item.get("ports", ())}


def values_of(profile: str) -> dict[str, Any]:
    """The values of a profile."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{profile}.yaml").read_text()) or {}
    return values


def render(values: Mapping[str, Any], chart: Path = CHART) -> Rendered:
    """Render and parse. Raises what Helm raises, and ``ValueError`` for a key that is there twice."""
    with helm_python.Chart.load(chart) as loaded:
        files = loaded.render(dict(values), name=RELEASE, namespace=NAMESPACE)
        merged = loaded.merge_values(dict(values))
    notes = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
    texts = [text for name, text in files.items() if not name.endswith("NOTES.txt")]
    objects = tuple(item for text in texts for item in yaml.load_all(text, Loader=_OneOfEach) if item)
    return Rendered(values=merged, objects=objects, notes=notes)


def pods_of(rendered: Rendered) -> list[Pods]:
    """Every kind of pod that the objects make."""
    return [pods for item in rendered.objects for pods in _pods(item)]


def _pods(item: Object) -> Iterator[Pods]:
    owner, spec = f"{item['kind']} {item['metadata']['name']}", item.get("spec", {})
    if item["kind"] == "StatefulSet":
        claims = tuple(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
        yield _from_template(owner, spec["template"], claims)
    elif item["kind"] == "LeaderWorkerSet":
        yield _from_template(owner, spec["leaderWorkerTemplate"]["leaderTemplate"])
        yield _from_template(owner, spec["leaderWorkerTemplate"]["workerTemplate"], rank=1)
    elif item["kind"] == "Job":
        yield _from_template(owner, spec["template"])
    elif item["kind"] == "Pod":
        yield _from_template(owner, item)


def _from_template(owner: str, template: Object, claims: tuple[str, ...] = (), rank: int = 0) -> Pods:
    labels = template["metadata"]["labels"]
    return Pods(owner, labels["app.kubernetes.io/component"], labels, template["spec"], claims, rank)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of Kubernetes, with expressions of ``In`` alone, selects such labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted and all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    """Its environment; what comes from a secret is a word."""
    return {item["name"]: item.get("value", "from-a-secret") for item in container.get("env", ())}
