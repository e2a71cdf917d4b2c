"""The OpenAPI document, made from the table of operations and from the model that is served. No request passes here."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.document.answers import BEFORE, CREATED, errors_of
from server.document.examples import Examples
from server.document.form import form_schema
from server.document.operation import HEADERS, TAGS, Guard, Json, Media, Operation, Success
from server.document.operations import OPERATIONS
from server.document.served import Served, narrowed
from server.errors import ERRORS
from server.http.answers import ErrorAnswer

_ABOUT = """\
Videos from prompts, readable while they are made.

A prompt goes in, a playable video comes out block by block. A video has an address of its own: it can be read by many,
followed, steered, kept, and fetched again. Errors are `{"error": {"code", "message", "param", "type"}}`; `param` names
the field at fault, and `Retry-After` says when asking again makes sense.
"""
_SCHEMAS = "#/components/schemas/{model}"
_ERROR_WORDS = {
    400: "The request is not valid; `param` names the field.",
    401: "No key is known by this, or the viewer token has expired.",
    403: "The key, or the page that asks, may not do this, or the key's stored videos take all its bytes.",
    404: "There is no such video, block or model.",
    408: "The request did not arrive in time.",
    409: "The video is not in a state for this, or this `Idempotency-Key` came with another request before.",
    410: "It is no longer kept.",
    413: "The body is too large.",
    414: "The address is longer than 8 KiB.",
    415: "The body has to be JSON, or a form where a file may come.",
    416: "The file has no such part.",
    421: "The server does not go by this `Host`.",
    425: "It is not there yet; ask again.",
    429: "Too many requests, or no place is free.",
    431: "The headers are longer than 64 KiB.",
    502: "The model made something that is no picture.",
    503: "The server cannot do this now.",
    504: "No first block came in time.",
    507: "There is no room to store it.",
}
_SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key of the server, where it asks for keys."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Opens `GET` of one video, for players that cannot send a key; `urls` of its object carry it.",
    },
}


def openapi_document(served: Served) -> Json:
    """The whole document of a server that makes ``served``."""
    told = [operation for operation in OPERATIONS if operation.is_told]
    examples = Examples(served)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HiAR Server",
            "version": "0.1.0",
            "summary": "Live video from prompts.",
            "description": _ABOUT,
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": [{"name": tag, "description": words} for tag, words in TAGS.items()],
        "paths": _paths(told, examples, has_keys=served.has_keys),
        "components": {
            "schemas": _schemas(told, served),
            "responses": {f"Error{status}": _error(status, examples) for status in _error_statuses(told)},
            "headers": {name: {**header} for name, header in HEADERS.items()},
            "securitySchemes": _SECURITY,
        },
    }


def _paths(operations: Iterable[Operation], examples: Examples, *, has_keys: bool) -> Json:
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, examples, has_keys)
    return paths


def _operation(operation: Operation, examples: Examples, has_keys: bool) -> Json:
    told: Json = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        told["description"] = operation.description
    parameters = [*_of_path(operation.path), *operation.parameters]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        json = {"schema": _reference(operation.body), "examples": examples.of_body(operation.body)}
        form = {"multipart/form-data": {"schema": _form_reference(operation.body)}} if operation.takes_form else {}
        told["requestBody"] = {"required": True, "content": {"application/json": json, **form}}
    told["responses"] = {str(answer.status): _success(answer, examples) for answer in operation.answers}
    if operation.body is not None and operation.answers == (CREATED,):
        told["responses"]["200"]["links"] = _links()
    told["responses"] |= {str(s): {"$ref": f"#/components/responses/Error{s}"} for s in errors_of(operation)}
    told["security"] = _security(operation.guard, has_keys)
    return told


def _links() -> Json:
    """What can be done with a video that was made."""
    about = [row for row in OPERATIONS if row.is_told and "{video_id}" in row.path and "{n}" not in row.path]
    return {row.id: {"operationId": row.id, "parameters": {"video_id": "$response.body#/id"}} for row in about}


def _of_path(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, **_PATH_WORDS[name]} for name in re.findall(r"{(\w+)}", path)
    ]


_PATH_WORDS: dict[str, Json] = {
    "video_id": {"description": "`id` of the video.", "schema": {"type": "string", "minLength": 1}},
    "n": {
        "description": "Number of the block, from 0.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
    "name": {"description": "`id` of the model.", "schema": {"type": "string", "minLength": 1}},
}


def _success(answer: Success, examples: Examples) -> Json:
    told: Json = {"description": answer.description, "headers": _headers("X-Request-Id", *answer.headers)}
    if answer.model is not None:
        json: Json = {"schema": _reference(answer.model)}
        example = examples.of_answer(answer.model)
        told["content"] = {"application/json": json if example is None else {**json, "example": example}}
    if answer.media:
        told["content"] = {media.type: _of_media(media) for media in answer.media}
    return told


def _of_media(media: Media) -> Json:
    if media.data is not None:
        return {"schema": _of_events(media.data)}
    return {} if media.is_text else {"schema": {"type": "string", "format": "binary"}}


def _of_events(data: type[BaseModel]) -> Json:
    """One of many server-sent events: the lines of each are fields."""
    text = {"type": "string"}
    json = {**text, "contentMediaType": "application/json", "contentSchema": _reference(data)}
    return {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {"id": text, "event": {**text, "description": "`type` of the data."}, "data": json},
    }


def _error(status: int, examples: Examples) -> Json:
    names = [] if status in BEFORE and status != 503 else ["X-Request-Id"]
    if any(row.status == status and row.retry_s is not None for row in ERRORS):
        names.append("Retry-After")
    if status == 401:
        names.append("WWW-Authenticate")
    if status == 416:
        names.append("Content-Range")
    content = {"schema": _reference(ErrorAnswer), "examples": examples.of_error(status)}
    told: Json = {"description": _ERROR_WORDS[status], "content": {"application/json": content}}
    return {**told, "headers": _headers(*names)} if names else told


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _security(guard: Guard, has_keys: bool) -> list[Json]:
    if guard in {Guard.OPEN, Guard.PROBE}:
        return []
    asked: list[Json] = [{"key": []}, {"token": []}] if guard is Guard.VIEWER else [{"key": []}]
    return asked if has_keys else [*asked, {}]


def _error_statuses(operations: Iterable[Operation]) -> list[int]:
    return sorted({status for operation in operations for status in errors_of(operation)})


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def _form_reference(model: type[BaseModel]) -> Json:
    return {"$ref": _SCHEMAS.format(model=f"{model.__name__}Form")}


def _schemas(operations: Iterable[Operation], served: Served) -> dict[str, Any]:
    """Of bodies what is sent, of answers what is received."""
    bodies = {row.body for row in operations if row.body is not None}
    answered = [answer for row in operations for answer in row.answers]
    answers = {answer.model for answer in answered if answer.model is not None}
    answers |= {media.data for answer in answered for media in answer.media if media.data is not None}
    ordered = [
        *((model, "validation") for model in sorted(bodies, key=lambda one: one.__name__)),
        *((model, "serialization") for model in sorted(answers | {ErrorAnswer}, key=lambda one: one.__name__)),
    ]
    _, found = models_json_schema(ordered, ref_template=_SCHEMAS)  # type: ignore[arg-type]
    schemas = narrowed(found["$defs"], served)
    forms = {row.body.__name__ for row in operations if row.body is not None and row.takes_form}
    return schemas | {f"{name}Form": form_schema(schemas[name]) for name in sorted(forms)}
