"""The client knows what the server's document tells, all of it and nothing else: fields, types, words, errors."""

import ast
import dataclasses
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

import hiar_client
from hiar_client import AsyncClient, AsyncVideo, Client, Video, errors, objects, told_errors
from hiar_client.async_client import AsyncModelList, AsyncVideos
from hiar_client.client import ModelList, Videos
from hiar_client.events import KINDS
from hiar_client.requests import CreateFields, GenerateFields
from server.document.openapi import openapi_document
from server.document.operations import OPERATIONS
from server.document.served import Served
from server.errors import CLIENT_LEFT, ERRORS

SERVED = Served(model="m", sizes=("96x96",), fps=16, max_fps=60, max_seconds=None, has_keys=True)
SCHEMAS = openapi_document(SERVED)["components"]["schemas"]
RECORDS: dict[str, type] = {
    "VideoAnswer": objects.VideoInfo,
    "VideosAnswer": objects.VideoPage,
    "VideoDeleted": objects.VideoDeleted,
    "PromptChanged": objects.PromptChange,
    "ModelAnswer": objects.Model,
    "ModelsAnswer": objects.Models,
    "CapabilitiesAnswer": objects.Capabilities,
}
CALLS: dict[str, Callable[..., Any]] = {
    "generate_video": Client.generate,
    "create_video": Videos.create,
    "remix_video": Videos.remix,
    "extend_video": Videos.extend,
    "list_videos": Videos.list,
    "get_video": Videos.get,
    "delete_video": Videos.delete,
    "change_prompt": Videos.prompt,
    "pause_video": Videos.pause,
    "resume_video": Videos.resume,
    "cancel_video": Videos.cancel,
    "download_content": Videos.content,
    "stream_video": Client.watch,
    "watch_events": Videos.events,
    "list_models": ModelList.list,
    "get_model": ModelList.get,
    "get_capabilities": Client.capabilities,
}
FOR_PLAYERS_AND_PROBES = {"get_playlist", "get_init_segment", "get_block", "get_liveness", "get_readiness"}
NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}
Shape = Any
"""A type that can be compared, of JSON or of Python."""


def shape_of_schema(schema: dict[str, Any]) -> Shape:
    if "$ref" in schema:
        return shape_of_schema(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return frozenset(shape_of_schema(one) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ("words", *sorted(schema.get("enum", [schema.get("const")])))
    if schema["type"] == "array":
        return ("array", shape_of_schema(schema["items"]))
    if schema["type"] == "object":
        return tuple(sorted((name, shape_of_schema(part)) for name, part in schema["properties"].items()))
    return schema["type"]


def shape_of_hint(hint: Any) -> Shape:
    if get_origin(hint) in {Union, UnionType}:
        return frozenset(map(shape_of_hint, get_args(hint)))
    if get_origin(hint) is Literal:
        return ("words", *sorted(get_args(hint)))
    if get_origin(hint) is tuple:
        return ("array", shape_of_hint(get_args(hint)[0]))
    if dataclasses.is_dataclass(hint):
        return tuple(sorted((name, shape_of_hint(part)) for name, part in get_type_hints(hint).items()))
    return NAMES[hint]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_fields_and_types_of_its_schema(name: str) -> None:
    assert dict(shape_of_hint(RECORDS[name])) == dict(shape_of_schema(SCHEMAS[name]))


@pytest.mark.parametrize(
    ("name", "fields", "also"), [("GenerateRequest", GenerateFields, {}), ("VideoCreate", CreateFields, {"seconds"})]
)
def test_a_request_has_the_fields_and_types_of_its_schema(name: str, fields: type, also: set[str]) -> None:
    """Beside the prompt. ``also``: what may be a text, too, for other clients. What the model has is text here."""
    schema = {name: part for name, part in SCHEMAS[name]["properties"].items() if name != "prompt"}
    hints = get_type_hints(fields)
    assert hints.keys() == schema.keys()
    for field, part in schema.items():
        if part.get("contentEncoding") == "base64":
            assert bytes in get_args(hints[field])
            continue
        told = shape_of_schema({**part, "anyOf": [{"type": "string"}, {"type": "null"}]} if field in MODELS else part)
        told = told if isinstance(told, frozenset) else frozenset({told})
        assert shape_of_hint(hints[field]) == (told - ({"string"} if field in also else set())) | {"null"}, field


MODELS = {"size", "model"}
"""Fields whose words are those of the model that is served."""


def test_every_operation_has_a_method_with_its_parameters() -> None:
    told = {row.id: row for row in OPERATIONS if row.is_told}
    assert CALLS.keys() | FOR_PLAYERS_AND_PROBES == told.keys()
    for name, call in CALLS.items():
        row, takes = told[name], inspect.signature(call).parameters.keys()
        asked = {part["name"] for part in row.parameters if part["in"] == "query"}
        assert {"from_block" if word == "from" else word for word in asked} <= takes, name
        if row.body is not None and not row.takes_form:
            assert row.body.model_fields.keys() <= takes, name


def test_the_words_of_queries_are_the_servers() -> None:
    words = {
        part["name"]: set(part["schema"]["enum"])
        for row in OPERATIONS
        for part in row.parameters
        if "enum" in part["schema"]
    }
    assert words == {"order": set(get_args(objects.Order)), "variant": set(get_args(objects.Variant))}


def test_a_field_of_a_newer_server_is_passed_over_and_a_missing_one_is_told() -> None:
    told = {"id": "v", "object": "video.deleted", "deleted": True, "mood": "good"}
    assert objects.read(objects.VideoDeleted, told) == objects.VideoDeleted(
        id="v", object="video.deleted", deleted=True
    )
    for body in (b'{"id": "v"}', b"[]", b"<html>"):
        with pytest.raises(hiar_client.UnexpectedAnswer, match="VideoDeleted"):
            objects.read_body(objects.VideoDeleted, body)


def test_every_error_of_the_server_has_its_class_and_the_reverse() -> None:
    rows = {row.code for row in ERRORS if row is not CLIENT_LEFT}  # nobody is there to read that one
    kinds = {kind.code: kind for kind in vars(errors).values() if inspect.isclass(kind)}
    assert rows == {code for code, kind in kinds.items() if issubclass(kind, errors.ServerError)} - {"server_error"}
    assert len(kinds) == len([kind for kind in vars(errors).values() if inspect.isclass(kind)]), "one code a class"
    for row in ERRORS:
        body = b'{"error": {"code": "%s", "message": "m", "param": null}}' % row.code.encode()
        error = told_errors.error_of_answer(row.status, {}, body)
        assert type(error) is kinds.get(row.code, errors.ServerError) and error.code == row.code


def test_errors_can_be_sent_to_other_processes() -> None:
    for kind in (kind for kind in vars(errors).values() if inspect.isclass(kind)):
        error = kind("so it is")
        error.status = 400
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind and vars(copy) == vars(error) and str(copy) == "so it is"


def test_every_event_has_its_class_and_the_reverse() -> None:
    """With the fields that the page about HTTP tells of."""
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    table = page[page.index("## Events") : page.index("## The stream")]
    told: dict[str, set[str]] = {}
    for types, fields in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]* \|([^|]*)\|$", table, re.MULTILINE):
        names = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", fields))
        told |= {kind: {"type", "id", *names} for kind in re.findall(r"`(\w+)`", types) if kind != "type"}
    assert told == {name: set(get_type_hints(kind)) for name, kind in KINDS.items()}
    assert all(get_args(get_type_hints(kind)["type"]) == (name,) for name, kind in KINDS.items())


@pytest.mark.parametrize(
    ("plain", "asynchronous"),
    [(Client, AsyncClient), (Video, AsyncVideo), (Videos, AsyncVideos), (ModelList, AsyncModelList)],
)
def test_both_clients_have_the_same_methods(plain: type, asynchronous: type) -> None:
    def signatures(kind: type) -> dict[str, list[inspect.Parameter]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(call).parameters.values()) for name, call in found if name[0] != "_"}

    assert signatures(plain) == signatures(asynchronous)


def test_all_that_is_public_is_exported() -> None:
    assert set(hiar_client.__all__) >= {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert set(hiar_client.__all__) >= {kind.__name__ for kind in KINDS.values()}
    assert all(hasattr(hiar_client, name) for name in hiar_client.__all__)


def test_input_and_output_is_in_few_modules() -> None:
    """What both clients share has none, so that it can be the same for both."""
    folder = Path(hiar_client.__file__).parent
    shared = ("calls", "download", "events", "exchange", "fragments", "objects", "outage", "reader", "told_errors")
    for name in shared:
        imported = {
            getattr(node, "module", None) or node.names[0].name
            for node in ast.walk(ast.parse((folder / f"{name}.py").read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not {one.split(".")[0] for one in imported} & {"httpx", "anyio", "asyncio", "socket", "threading"}, name
