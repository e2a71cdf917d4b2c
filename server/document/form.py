"""The form that may come in place of a JSON body, as the document tells it."""

from typing import Any

from pydantic import BaseModel

from server.document.operation import Json

_FILES = {
    "image": "A picture that the video begins with: JPEG, PNG or WebP.",
    "video": "A clip that the video goes on from: MP4.",
    "input_reference": "Either, as OpenAI's clients send it.",
}


def form_schema(model: type[BaseModel]) -> Json:
    """The fields of a JSON body as those of a form, and a picture or a clip as a file: one of the three."""
    fields: dict[str, Any] = model.model_json_schema()["properties"]
    prompt = {"type": "string", "description": "What to show."}
    files = {name: {"type": "string", "format": "binary", "description": words} for name, words in _FILES.items()}
    return {"type": "object", "required": ["prompt"], "properties": {**fields, "prompt": prompt, **files}}
