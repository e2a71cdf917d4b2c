"""Values that make no sense are refused by their path; the schema and the README say what values.yaml says."""

import importlib.util
import json
import re
import sys
from types import ModuleType
from typing import Any

import helm_python
import pytest

from tests.deploy.chart import CHART, ROOT, render


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_helm_document", ROOT / "deploy" / "helm" / "document.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


document = load()
VALUES, SCHEMA, README = ((CHART / name).read_text() for name in ("values.yaml", "values.schema.json", "README.md"))


def nested(path: str, value: object) -> dict[str, Any]:
    for key in reversed(path.split("/")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


REFUSED = [
    ("replicas", 2),
    ("image/tag", "latest"),
    ("image/digest", "sha256:12"),
    ("image/repository", "hiar-server:1.0"),
    ("topology/mode", "cluster"),
    ("topology/replicas", -1),
    ("topology/replicas", "2"),
    ("topology/lws/size", 1),
    ("devices/kind", "rocm"),
    ("devices/count", 0),
    ("devices/gpus", 4),
    ("server/port", 80),
    ("server/maxVideos", 0),
    ("server/stageTimeoutSeconds", 0),
    ("server/maxVideoSeconds", -1),
    ("server/logLevel", "verbose"),
    ("server/apiKey", "x"),
    ("server/logFormat", "xml"),
    ("server/maxPerClient", 0),
    ("server/maxUploadBytes", 1),
    ("server/allowedHosts", ["a b"]),
    ("server/corsOrigins", ["*"]),
    ("server/trustedProxies", ["proxy"]),
    ("durability/volume/existingClaim", "My Claim"),
    ("durability/volume/kind", "hostPath"),
    ("durability/storeSecret/name", "My Secret"),
    ("durability/ports", [0]),
    ("enabled", False),
    ("image/tag", 20261130),
    ("podLabels/version", 1.10),
    ("podAnnotations/scrape", True),
    ("nodeSelector/gpus", 8),
    ("durability/store", "folder"),
    ("durability/keepHours", -1),
    ("durability/advertise", "pod"),
    ("durability/keepBytes", "much"),
    ("auth/keysSecret/name", "My Secret"),
    ("auth/keys", "x"),
    ("model/name", "../secrets"),
    ("model/preset", "gdhe17/Self-Forcing"),
    ("model/decoder", "vae"),
    ("model/sizes", ["large"]),
    ("model/textDevice", "rocm:0"),
    ("model/dtype", "float16"),
    ("server/startTimeoutSeconds", 0),
    ("model/volume/kind", "hostPath"),
    ("model/volume/size", "64Gx"),
    ("model/volume/accessModes", []),
    ("model/download/source", "https://example.com/model"),
    ("model/download/ports", [99999]),
    ("storage/shmSize", "much"),
    ("probes/liveness/failureThreshhold", 3),
    ("shutdown/drainSeconds", 0),
    ("shutdown/terminationGracePeriodSeconds", 30),
    ("service/sessionAffinity", "Cookie"),
    ("httpRoute/timeout", "forever"),
    ("metrics/port", 0),
    ("autoscaling/kind", "vpa"),
    ("autoscaling/targetLoad", 0.8),
    ("podDisruptionBudget/maxUnavailable", "half"),
    ("extraEnv", [{"name": "HIAR_PORT", "value": "1"}]),
    ("extraEnv", [{"name": "IDS", "value": [1]}]),
    ("extraEnv", [{"name": "ID", "value": 2**60}]),
    ("extraEnv", [{"name": "ID", "values": "1"}]),
]


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=[f"{path}={value}" for path, value in REFUSED])
def test_nonsense_is_refused_by_its_path(path: str, value: object) -> None:
    with pytest.raises(helm_python.HelmValuesError) as refused:
        render(nested(path, value))
    above, _, name = path.rpartition("/")
    unknown = (
        rf"'/?{above}': additional properties '{name}' not allowed" if above else rf"additional properties '{name}'"
    )
    assert re.search(rf"'/{path}[/']|{unknown}", str(refused.value)), refused.value


CONTRADICTIONS = [
    ("/devices/count", {"devices": {"kind": "cuda", "count": 9}}),
    ("/topology/lws/groupTokenSecret/name", {"topology": {"mode": "lws"}}),
    ("/model/volume/existingClaim", {"model": {"name": "hiar"}}),
    ("/model/download/source", {"model": {"name": "hiar", "volume": {"kind": "shared"}}}),
    ("/model/download/source", {"model": {"name": "hiar", "volume": {"kind": "perPod"}}}),
    ("/model/name", {"model": {"download": {"source": "hiar"}}}),
    ("/model/name", {"model": {"preset": "self-forcing"}}),
    ("/model/download/only", {"model": {"name": "m", "download": {"source": "self-forcing", "only": ["vae/*"]}}}),
    ("/model/download/only", {"model": {"name": "hiar", "download": {"source": "hiar", "only": ["vae/*"]}}}),
    ("/durability/volume/existingClaim", {"durability": {"volume": {"kind": "existing"}}}),
    ("/resources/claims", {"devices": {"kind": "cuda", "gpuResource": ""}, "resources": {"claims": []}}),
    ("/autoscaling/keda/serverAddress", {"autoscaling": {"kind": "keda"}}),
    ("/httpRoute/parentRefs", {"httpRoute": {"enabled": True}}),
    (
        "/model/volume/accessModes",
        {
            "topology": {"replicas": 2},
            "model": {"name": "m", "volume": {"kind": "shared"}, "download": {"source": "a/b"}},
        },
    ),
    (
        "/model/volume/kind",
        {
            "topology": {"mode": "lws", "lws": {"groupTokenSecret": {"name": "g"}}},
            "model": {"name": "m", "volume": {"kind": "perPod"}, "download": {"source": "a/b"}},
        },
    ),
]


@pytest.mark.parametrize(("path", "values"), CONTRADICTIONS, ids=[path for path, _ in CONTRADICTIONS])
def test_values_that_contradict_each_other_are_refused_by_a_path(path: str, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=f"'{path}'"):
        render(values)


CLAIM = {"kind": "existing", "existingClaim": "jobs"}
UNEQUAL = [
    ("/resources/limits", {"resources": {"limits": {"nvidia.com/gpu": 1}}}),
    ("/metrics/port", {"metrics": {"port": 8000}}),
    ("/autoscaling/minReplicas", {"autoscaling": {"minReplicas": 5}}),
    ("/durability/databaseSecret/name", {"topology": {"replicas": 2}}),
    ("/durability/databaseSecret/name", {"autoscaling": {"kind": "hpa"}, "durability": {"volume": CLAIM}}),
    ("/durability/databaseSecret/name", {"durability": {"store": "s3://live/videos"}}),
    ("/durability/store", {"durability": {"databaseSecret": {"name": "database"}}}),
    ("/durability/store", {"durability": {"databaseSecret": {"name": "database"}, "volume": {"kind": "perPod"}}}),
    ("/durability/store", {"durability": {"storeSecret": {"name": "store"}}}),
    ("/durability/keepBytes", {"durability": {"volume": {"kind": "emptyDir"}}}),
    (
        "/durability/volume/kind",
        {
            "durability": {"volume": {"kind": "perPod"}},
            "topology": {"mode": "lws", "lws": {"groupTokenSecret": {"name": "g"}}},
        },
    ),
]


@pytest.mark.parametrize(("path", "values"), UNEQUAL, ids=[path for path, _ in UNEQUAL])
def test_what_the_schema_cannot_compare_is_refused_by_a_path(path: str, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=path):
        render(values)


def test_schema_refuses_unknown_keys_everywhere() -> None:
    """But in objects of Kubernetes that are passed on."""
    schema = json.loads(SCHEMA)
    passed_on = {"resources", "requests", "limits", "podSecurityContext", "securityContext", "affinity", "global"}

    def opened(node: dict[str, Any], name: str) -> set[str]:
        inner = {found for key, value in node.get("properties", {}).items() for found in opened(value, key)}
        return inner | ({name} if node.get("type") == "object" and "additionalProperties" not in node else set())

    assert opened(schema, "") == passed_on


def test_schema_and_readme_are_up_to_date() -> None:
    """Otherwise run ``python deploy/helm/document.py``."""
    keys = document.described_keys(VALUES)
    described = document.with_descriptions(json.loads(SCHEMA), keys)
    assert document.schema_text(document.with_required(described, keys)) == SCHEMA
    assert document.with_table(README, keys) == README


def test_every_key_of_the_schema_has_a_default() -> None:
    def leaves(node: dict[str, Any], path: str) -> set[str]:
        properties = node.get("properties")
        if not properties:
            return {path}
        return {leaf for key, value in properties.items() for leaf in leaves(value, f"{path}.{key}" if path else key)}

    keys = {".".join(key.path) for key in document.described_keys(VALUES)}
    missing = {
        leaf for leaf in leaves(json.loads(SCHEMA), "") if not any((leaf + ".").startswith(key + ".") for key in keys)
    }
    assert missing == {"global"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\n", "no comment describes a"),
        ("# An a.\na:\n  # A b.\n  b: 1\n  c: 2\n", "no comment describes a.c"),
        ("- 1\n", "not a mapping"),
    ],
)
def test_a_value_that_nothing_describes_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        document.described_keys(text)


def test_a_comment_becomes_the_description() -> None:
    keys = document.described_keys("# About the file.\n\n# Fruit, and\n# more.\na:\n  # Peel.\n  b: [1]\n")
    assert [(key.path, key.default, key.text, key.is_section) for key in keys] == [
        (("a",), {"b": [1]}, "Fruit, and more.", True),
        (("a", "b"), [1], "Peel.", False),
    ]
    schema = {"properties": {"a": {"type": "object", "properties": {"b": {"type": "array"}}}}}
    described = document.with_descriptions(schema, keys)
    assert described["properties"]["a"]["properties"]["b"] == {"description": "Peel.", "type": "array"}
    assert document.with_required(described, keys)["properties"]["a"]["required"] == ["b"]
    with pytest.raises(ValueError, match=r"the schema has no a\.b"):
        document.with_descriptions({"properties": {"a": {}}}, keys)
    table = document.with_table(f"Before.\n{document.BEGIN}\nold\n{document.END}\nAfter.\n", keys)
    assert "| `a.b` | `[1]` | Peel. |" in table and "old" not in table and table.endswith("After.\n")
    with pytest.raises(ValueError, match="end of values"):
        document.with_table(document.BEGIN, keys)
