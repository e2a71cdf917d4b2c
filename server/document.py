"""What the API document says of answers and parameters, beside what the framework finds out by itself.

No request passes here.
"""

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from server.http.answers import ErrorAnswer
from server.videos.idempotency import HEADER, KEY_LENGTH_MAX
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate

A_VIDEO = "/v1/videos/{video_id}"
"""The address of a video."""
Responses = dict[int | str, dict[str, Any]]


def open_errors(*codes: int) -> Responses:
    """Those of an address that needs no key, by status."""
    return {code: {"model": ErrorAnswer} for code in codes}


def errors(*codes: int) -> Responses:
    """Those of an address that needs a key, which may be asked too often."""
    return open_errors(*sorted({401, 403, 421, 429, *codes}))


VIDEO: Responses = {
    200: {
        "description": "Fragmented MP4, sent while it is generated. The status is sent with the first fragment.",
        "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Video-Id": {"description": "For `/v1/videos/{id}`.", "schema": {"type": "string"}},
            "X-Decoder": {
                "description": "What turns latents into pictures: `wan` is faithful, `tiny` is many times faster.",
                "schema": {"type": "string"},
            },
        },
    }
}


_BYTES = {"schema": {"type": "string", "format": "binary"}}
CONTENT: Responses = {
    200: {
        "description": "The file of an ended video; of one that is being made, fragments as they come.",
        "content": {"video/mp4": _BYTES, "image/webp": _BYTES, "image/jpeg": _BYTES},
    },
    206: {"description": "The part of the file that `Range` names.", "content": {"video/mp4": _BYTES}},
    304: {"description": "The client has it: `If-None-Match` names its `ETag`."},
}
IDEMPOTENT = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "The same request with the same key within 24 hours gets the same video.",
            "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX},
        }
    ]
}


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A form with the fields of a JSON body, and a picture or a clip as a file."""
    properties = model.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    a_file = {"type": "string", "format": "binary"}
    files = {
        "image": {**a_file, "description": "A picture that the video begins with: JPEG, PNG or WebP."},
        "video": {**a_file, "description": "A clip that the video goes on from: MP4."},
        "input_reference": {**a_file, "description": "Either, as OpenAI's clients send it."},
    }
    prompt = {"type": "string", "description": "What to show."}
    return {"type": "object", "required": ["prompt"], "properties": {**properties, "prompt": prompt, **files}}


def query(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameters of a query that a route reads itself."""
    return {"parameters": parameters}


def complete_document(app: FastAPI, open_paths: Collection[str]) -> None:
    """Add the bodies that we read ourselves to the OpenAPI document; drop the 422 that the framework supposes."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path not in open_paths:
            for operation in operations.values():
                operation["security"] = [{"key": []}, {}]  # a server without keys asks for none
    schemas = document["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for model in (GenerateRequest, PromptChange, VideoCreate):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
