"""Strict validation of rendered objects: Kubernetes by its own schemas, other kinds by theirs.

Models of other kinds come from packages that are generated from the real definitions; they ignore unknown fields, so
their JSON schemas are closed here. LeaderWorkerSet and HTTPRoute have no package: ``schemas/`` has the fields we use.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from tests.deploy.chart import Object, Rendered

OLDEST, NEWEST = "1.30", "1.37"
_MODELS = {model.__name__: model for model in (ScaledObject, PrometheusRule, ServiceMonitor)}
_FILES = {"LeaderWorkerSet": "leaderworkerset.json", "HTTPRoute": "httproute.json"}


def faults(rendered: Rendered, version: str) -> list[str]:
    """What the API server of such a version, or a definition, would refuse: kind, name, place and reason."""
    return [
        f"{item['kind']} {item['metadata']['name']} {fault}"
        for item in rendered.objects
        for fault in _of(item, version)
    ]


def _of(item: Object, version: str) -> Iterator[str]:
    kind = item["kind"]
    if kind in _FILES or kind in _MODELS:
        yield from _refusals(item, _schema(kind))
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
def _schema(kind: str) -> dict[str, Any]:
    if kind in _MODELS:
        closed: dict[str, Any] = _closed(_MODELS[kind].model_json_schema(by_alias=True))
        return closed
    schema: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / _FILES[kind]).read_text())
    return schema


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
