"""The OpenAPI document: valid, complete, and true of the model that is served."""

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest

from server.document.openapi import openapi_document
from server.document.operation import HEADERS, TAGS, Json
from server.document.operations import OPERATIONS
from server.document.served import Served
from server.errors import ERRORS
from tests.instant import MANIFEST
from tests.server.live_server import LiveServer

SERVED = Served(
    model=MANIFEST.name,
    sizes=tuple(MANIFEST.video.size_names),
    fps=MANIFEST.video.fps,
    max_fps=MANIFEST.video.max_fps,
    max_seconds=None,
    has_keys=True,
)
DOCUMENT = openapi_document(SERVED)
TOLD = [(path, method, row) for path, rows in DOCUMENT["paths"].items() for method, row in rows.items()]
IDS = [row["operationId"] for _, _, row in TOLD]


def references(part: Any) -> set[str]:
    return set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(part)))


def found(reference: str) -> Any:
    part: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def validator(schema: Json) -> jsonschema.Draft202012Validator:
    """Of a schema that may refer to others of the document."""
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_the_server_sends_it(shared: LiveServer) -> None:
    answer = httpx.get(f"{shared.url}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["paths"].keys() == DOCUMENT["paths"].keys()


def test_names_are_distinct_and_read_as_functions() -> None:
    assert len(IDS) == len(set(IDS)) and all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in IDS)
    assert {"create_video", "generate_video", "list_videos", "get_video", "download_content"} <= set(IDS)
    assert [tag["name"] for tag in DOCUMENT["tags"]] == list(TAGS)
    assert {row["tags"][0] for _, _, row in TOLD} == set(TAGS)
    assert {row.id for row in OPERATIONS if row.is_told} == set(IDS)


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    told = references(DOCUMENT)
    for reference in told:
        found(reference)
    parts = DOCUMENT["components"]
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in parts[kind]}
    assert told >= there
    assert set(parts["headers"]) == set(HEADERS)


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_schemas_are_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


@pytest.mark.parametrize(("path", "method", "row"), TOLD, ids=IDS)
def test_an_operation_tells_all(path: str, method: str, row: Json) -> None:
    assert row["summary"] and not row["summary"].endswith(".")
    names = set(re.findall(r"{(\w+)}", path))
    assert {one["name"] for one in row.get("parameters", ()) if one["in"] == "path"} == names
    assert ("requestBody" in row) <= (method == "post")
    for status, answer in row["responses"].items():
        told = found(answer["$ref"]) if "$ref" in answer else answer
        assert told["description"]
        if status >= "400":
            assert found(next(iter(references(told["content"]))))["title"] == "ErrorAnswer"
        if status in {"429", "503"}:
            assert "Retry-After" in told["headers"]
    assert {"400", "408", "413", "414", "431"} <= set(row["responses"])


def test_examples_fit_their_schemas() -> None:
    checked = 0
    for _, _, row in TOLD:
        for part in (row.get("requestBody", {}), *row["responses"].values()):
            for content in (found(part["$ref"]) if "$ref" in part else part).get("content", {}).values():
                values = [one["value"] for one in content.get("examples", {}).values()]
                for value in [*values, *([content["example"]] if "example" in content else [])]:
                    validator(content["schema"]).validate(value)
                    checked += 1
    assert checked > 50


def test_examples_of_requests_are_taken(shared: LiveServer) -> None:
    document = httpx.get(f"{shared.url}/openapi.json").json()
    for address in ("/v1/videos", "/v1/generate"):
        examples = document["paths"][address]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            answer = httpx.post(shared.url + address, json=example["value"])
            assert answer.status_code == 200, answer.text


def test_every_error_says_what_it_is_about() -> None:
    assert all(row.about.endswith(".") for row in ERRORS)


def test_bodies_have_the_numbers_of_the_model() -> None:
    served = Served(model="m", sizes=("64x32",), fps=8, max_fps=12, max_seconds=30, has_keys=False)
    fields = openapi_document(served)["components"]["schemas"]["VideoCreate"]["properties"]
    assert fields["size"]["anyOf"][0] == {"type": "string", "enum": ["64x32"]}
    assert fields["fps"]["anyOf"][0]["maximum"] == 12 and fields["seconds"]["anyOf"][0]["maximum"] == 30
    assert fields["model"]["anyOf"][0]["enum"] == ["m"]


@pytest.mark.parametrize(
    ("prompt", "is_taken"),
    [
        ("a star", True),
        ("line\nbreak\tand \u202ertl 😀", True),
        ("", False),
        (" \n\t", False),
        ("a\x00b", False),
        ("a\x1b[31mb", False),
        ("a\x85b", False),
    ],
)
def test_the_pattern_of_prompts_takes_what_the_server_takes(shared: LiveServer, prompt: str, is_taken: bool) -> None:
    schema = {"$ref": "#/components/schemas/PromptChange"}
    assert validator(schema).is_valid({"prompt": prompt}) is is_taken
    answer = httpx.post(f"{shared.url}/v1/videos", json={"prompt": prompt, "seconds": 0.5})
    assert (answer.status_code == 200) is is_taken


@pytest.mark.parametrize("text", ["4", "0.5", "86400", "12.25", "0", "0.0", "04", "86401", "-1", "4s", "1e3", "99999"])
def test_the_pattern_of_seconds_takes_what_the_server_takes(shared: LiveServer, text: str) -> None:
    body = {"prompt": "x", "seconds": text}
    is_taken = httpx.post(f"{shared.url}/v1/videos", json=body).status_code == 200
    assert validator({"$ref": "#/components/schemas/VideoCreate"}).is_valid(body) is is_taken


def test_who_may_ask_is_told() -> None:
    rows = dict(zip(IDS, (row for _, _, row in TOLD), strict=True))
    assert rows["create_video"]["security"] == [{"key": []}]
    assert rows["stream_video"]["security"] == [{"key": []}, {"token": []}]
    assert rows["list_models"]["security"] == []
