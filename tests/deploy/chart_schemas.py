"""Strict validation of rendered objects: Kubernetes by its own schemas, other kinds by theirs in ``schemas/``.

Some come from packages that are generated from the real definitions. Importing those takes many seconds, so what they
say is kept in files; ``python -m tests.deploy.chart_schemas`` writes them anew. Their models ignore unknown fields, so
the schemas are closed here. LeaderWorkerSet and HTTPRoute have no package: their files have the fields we use.
"""

import importlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.deploy.chart import Object, Rendered

OLDEST, NEWEST = "1.30", "1.37"
PACKAGES = {
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
    "PrometheusRule": "cloudcoil.models.prometheus_operator.v1",
    "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
}
"""Where a kind's schema comes from."""
_KINDS = {"LeaderWorkerSet", "HTTPRoute", *PACKAGES}
_FOLDER = Path(__file__).parent / "schemas"


def faults(rendered: Rendered, version: str) -> list[str]:
    """What the API server of such a version, or a definition, would refuse: kind, name, place and reason."""
    return [
        f"{item['kind']} {item['metadata']['name']} {fault}"
        for item in rendered.objects
        for fault in _of(item, version)
    ]


def _of(item: Object, version: str) -> Iterator[str]:
    kind = item["kind"]
    if kind in _KINDS:
        yield from _refusals(item, kept(kind))
    else:
        yield from _kubernetes(item, version)
    if kind == "LeaderWorkerSet":
        for name in ("leaderTemplate", "workerTemplate"):
            template = item["spec"]["leaderWorkerTemplate"][name]
            pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
            yield from _kubernetes(pods, version)


def _kubernetes(item: Object, version: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except jsonschema.ValidationError as error:
        yield _sentence(error)


def _refusals(item: Object, schema: dict[str, Any]) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(item):
        yield _sentence(error)


def _sentence(error: jsonschema.ValidationError) -> str:
    deepest = jsonschema.exceptions.best_match([error])
    return f"at {deepest.json_path}: {deepest.message}"


@cache
def kept(kind: str) -> dict[str, Any]:
    """The schema of a kind that is not of Kubernetes itself."""
    schema: dict[str, Any] = json.loads(_file(kind).read_text())
    return schema


def generated(kind: str) -> dict[str, Any]:
    """The same, from the kind's package."""
    model = getattr(importlib.import_module(PACKAGES[kind]), kind)
    closed: dict[str, Any] = _closed(model.model_json_schema(by_alias=True))
    return closed


def _file(kind: str) -> Path:
    return _FOLDER / f"{kind.lower()}.json"


def _closed(schema: Any) -> Any:
    """The schema, refusing fields that it does not name."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _closed(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and result.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


if __name__ == "__main__":
    for name in PACKAGES:
        _file(name).write_text(json.dumps(generated(name), indent=1) + "\n")
