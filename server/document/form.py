"""The form that may come in place of a JSON body, as the document tells it."""

from typing import Any

from server.document.operation import Json

_FILES = {
    "image": "A picture that the video begins with: JPEG, PNG or WebP.",
    "video": "A clip that the video goes on from: MP4.",
    "input_reference": "Either, as OpenAI's clients send it.",
}


def form_schema(body: Json) -> Json:
    """The schema of a JSON body as that of a form, with a picture or a clip as a file: one of the three."""
    fields: dict[str, Any] = body["properties"]
    texts = (kind for kind in fields["prompt"]["oneOf"] if kind.get("type") == "string")
    prompt = {**next(texts), "description": "What to show."}
    files = {name: {"type": "string", "format": "binary", "description": words} for name, words in _FILES.items()}
    told = {name: _without_null(field) for name, field in fields.items()}
    known = {**told, "prompt": prompt, **files}
    return {"type": "object", "required": ["prompt"], "properties": known, "additionalProperties": False}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A form has no word for nothing: a field is left out."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    if not kinds:
        return field
    rest = {name: value for name, value in field.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**rest, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}
