"""The document of the API as one page of HTML: no script, and nothing that is fetched from elsewhere."""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from server.document.markup import Rows, cell, details, pre, table, words
from server.document.operation import Json

_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode("utf-8")).digest()).decode("ascii")
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; frame-ancestors 'none'; base-uri 'none'"
"""Of the page's answer."""
BASE = "{base}"
"""Stands in the page for the address that it is asked by."""


def page(document: Json) -> str:
    """The whole page, with ``BASE`` in it."""
    by_tag = _by_tag(document)
    sections = "".join(_section(document, tag, by_tag[tag["name"]]) for tag in document["tags"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(document["info"]["title"])}: API</title>\n<link rel="icon" href="data:,">\n'
        f'<style>{_STYLE}</style>\n</head>\n<body>\n<div class="page">\n{_contents(document, by_tag)}'
        f"<main>\n{_about(document)}{sections}{_errors(document)}{_objects(document)}</main>\n</div>\n</body>\n</html>\n"
    )


def _by_tag(document: Json) -> dict[str, list[tuple[str, str, Json]]]:
    found: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found[operation["tags"][0]].append((path, method, operation))
    return found


def _contents(document: Json, by_tag: dict[str, list[tuple[str, str, Json]]]) -> str:
    parts = []
    for tag in document["tags"]:
        items = "".join(
            f'<li><a href="#{one["operationId"]}">{_method(method)}<span>{escape(one["summary"])}</span></a></li>'
            for _, method, one in by_tag[tag["name"]]
        )
        parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{items}</ul>")
    links = '<li><a href="#errors">Errors</a></li><li><a href="#objects">Objects</a></li>'
    return f'<nav aria-label="Contents">{"".join(parts)}<h2>more</h2><ul>{links}</ul></nav>\n'


def _about(document: Json) -> str:
    info = document["info"]
    paragraphs = "".join(f"<p>{words(part)}</p>" for part in info["description"].strip().split("\n\n"))
    return (
        f"<h1>{escape(info['title'])}</h1>\n{paragraphs}"
        '<p class="soft"><a href="/openapi.json">openapi.json</a> · <a href="/">player</a></p>\n'
    )


def _section(document: Json, tag: Json, operations: list[tuple[str, str, Json]]) -> str:
    inside = "".join(_operation(document, path, method, one) for path, method, one in operations)
    return f"<h2>{escape(tag['name'])}</h2>\n<p>{words(tag['description'])}</p>\n{inside}"


def _operation(document: Json, path: str, method: str, operation: Json) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    parts = [
        f"<h3>{escape(operation['summary'])}</h3>",
        f'<div class="address">{_method(method)}<code>{escape(path)}</code>'
        f'<span class="soft">{escape(operation["operationId"])} · {_who(operation)}</span></div>',
        f"<p>{words(operation['description'])}</p>" if "description" in operation else "",
        _parameters(operation.get("parameters", [])),
        *(f"<h4>Body, {escape(kind)}</h4>{_fields(document, content['schema'])}" for kind, content in body.items()),
        f"<h4>Try it</h4>{pre(_curl(path, method, operation))}",
        *(_other_bodies(content) for content in body.values()),
        f"<h4>Answers</h4>{_answers(document, operation['responses'])}",
    ]
    return f'<section class="operation" id="{operation["operationId"]}">{"".join(parts)}</section>\n'


def _method(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _who(operation: Json) -> str:
    asked = {name for way in operation["security"] for name in way}
    if not asked:
        return "open to all"
    who = "with a key, or a viewer token" if "token" in asked else "with a key"
    return f"{who} where the server asks for keys" if {} in operation["security"] else who


def _parameters(parameters: list[Json]) -> str:
    rows: Rows = [
        (f"<code>{escape(one['name'])}</code>", one["in"], _kind(one["schema"]), words(one.get("description", "")))
        for one in parameters
    ]
    return f"<h4>Parameters</h4>{table(('name', 'in', 'what', ''), rows)}" if rows else ""


def _fields(document: Json, schema: Json) -> str:
    """A table of the fields of an object."""
    found = _resolved(document, schema)
    needed = found.get("required", ())
    rows: Rows = [
        (
            f"<code>{escape(name)}</code>{' *' if name in needed and 'additionalProperties' in found else ''}",
            _kind(field),
            words(field.get("description", "")),
        )
        for name, field in found.get("properties", {}).items()
    ]
    return table(("field", "what", ""), rows)


def _resolved(document: Json, part: Json) -> Json:
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def _kind(schema: Json) -> str:
    """What a value is, in few words, as HTML."""
    for word in ("anyOf", "oneOf"):
        if word in schema:
            kinds = " or ".join(_kind(one) for one in schema[word])
            return kinds + _default(schema)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in values) + _default(schema)
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return escape(str(schema.get("type", "anything"))) + _bounds(schema) + _default(schema)


def _bounds(schema: Json) -> str:
    told = [
        f"{sign} {_number(schema[word])}"
        for word, sign in (("exclusiveMinimum", "&gt;"), ("minimum", "≥"), ("maximum", "≤"))
        if word in schema
    ]
    return f" {', '.join(told)}" if told else ""


def _number(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _default(schema: Json) -> str:
    default = schema.get("default")
    if default is None:
        return ""
    return f", default {_number(default) if isinstance(default, float) else escape(str(default))}"


def _curl(path: str, method: str, operation: Json) -> str:
    start = "curl -sS "
    if method == "delete":
        start += "-X DELETE "
    elif method == "post" and "requestBody" not in operation:
        start += "-X POST "
    parts = [start + BASE + path.replace("{video_id}", "$ID").replace("{n}", "0").replace("{name}", "$MODEL")]
    if operation["security"] and {} not in operation["security"]:
        parts.append('-H "Authorization: Bearer $HIAR_KEY"')
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            value = json.dumps(next(iter(content["examples"].values()))["value"])
            parts += ["-H 'Content-Type: application/json'", f"-d '{value}'"]
    kinds = {kind for answer in operation["responses"].values() for kind in answer.get("content", {})}
    if "video/mp4" in kinds:
        parts.append("-o video.mp4")
    return " \\\n  ".join(parts)


def _other_bodies(content: Json) -> str:
    examples = list(content.get("examples", {}).values())[1:]
    inside = "".join(f"<h4>{escape(one['summary'])}</h4>{pre(json.dumps(one['value'], indent=2))}" for one in examples)
    return details("Other bodies", inside) if inside else ""


def _answers(document: Json, responses: Json) -> str:
    rows: Rows = []
    for status, answer in responses.items():
        if "$ref" not in answer:
            kinds = ", ".join(f"<code>{kind}</code>" for kind in answer.get("content", {}))
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            rows.append((f"<b>{status}</b>", words(answer["description"]), _kind(schema) if schema else kinds))
    errors = ", ".join(f'<a href="#error{status}">{status}</a>' for status, one in responses.items() if "$ref" in one)
    example = next((one["example"] for one in _json_answers(responses) if "example" in one), None)
    shown = details("Example", pre(json.dumps(example, indent=2))) if example is not None else ""
    return f'{table(("status", "", ""), rows)}{shown}<p class="soft">Errors: {errors}</p>'


def _json_answers(responses: Json) -> list[Json]:
    contents = (answer.get("content", {}).get("application/json") for answer in responses.values())
    return [content for content in contents if content is not None]


def _errors(document: Json) -> str:
    rows: Rows = []
    for answer in document["components"]["responses"].values():
        examples = answer["content"]["application/json"]["examples"].values()
        for place, example in enumerate(examples):
            status = _status_of(document, answer)
            named = cell(f"<b>{status}</b>", f"error{status}" if place == 0 else None)
            rows.append((named, f"<code>{example['value']['error']['code']}</code>", words(example["summary"])))
    return f'<h2 id="errors">Errors</h2>\n<div class="operation">{table(("status", "code", ""), rows)}</div>\n'


def _status_of(document: Json, answer: Json) -> str:
    responses = document["components"]["responses"]
    return str(next(name for name, one in responses.items() if one is answer)).removeprefix("Error")


def _objects(document: Json) -> str:
    parts = []
    for name, schema in sorted(document["components"]["schemas"].items()):
        told = _fields(document, schema) if "properties" in schema else f"<p>{_kind(schema)}</p>"
        about = f"<p>{words(schema['description'])}</p>" if "description" in schema else ""
        parts.append(f'<section class="operation" id="{name}"><h3>{name}</h3>{about}{told}</section>\n')
    return f'<h2 id="objects">Objects</h2>\n{"".join(parts)}'
