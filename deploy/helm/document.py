"""Carries the comments of the chart's values.yaml into its schema and the table of its README.

    python deploy/helm/document.py

A description is written once, above its key. The schema also learns which keys null may not take away: Helm drops what
is null, and a template would find nothing there. Knows nothing of templates.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "hiar-server"
BEGIN, END = "<!-- values: written by deploy/helm/document.py -->", "<!-- end of values -->"


@dataclass(frozen=True, kw_only=True)
class Described:
    """A key of the values with the comment above it."""

    path: tuple[str, ...]
    default: Any
    text: str
    is_section: bool
    """Whether keys below it are described themselves."""

    @property
    def can_be_null(self) -> bool:
        """Whether it may be taken away: nothing means the same, or it is an object that is passed on to Kubernetes."""
        return not self.is_section and (self.default in ("", [], None) or isinstance(self.default, dict))


def described_keys(text: str) -> list[Described]:
    """All described keys of a values file, in its order. Raises ``ValueError`` for a value that nothing describes."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("the values are not a mapping")
    return list(_below(root, (), text.splitlines()))


def _below(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Described]:
    for key, value in node.value:
        path = (*above, key.value)
        comment = _comment_above(lines, key.start_mark.line, key.start_mark.column)
        inner = list(_below(value, path, lines)) if _is_section(value, lines) else []
        if not comment and not inner:
            raise ValueError(f"no comment describes {'.'.join(path)}")
        if comment:
            default = yaml.SafeLoader("").construct_document(value)
            yield Described(path=path, default=default, text=comment, is_section=bool(inner))
        yield from inner


def _is_section(node: yaml.Node, lines: list[str]) -> bool:
    """Whether any key below, at any depth, has a comment."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return False
    return any(
        _comment_above(lines, key.start_mark.line, key.start_mark.column) or _is_section(value, lines)
        for key, value in node.value
    )


def _comment_above(lines: list[str], line: int, column: int) -> str:
    prefix, found = " " * column + "# ", []
    while line > 0 and lines[line - 1].startswith(prefix):
        line -= 1
        found.append(lines[line].removeprefix(prefix).strip())
    return " ".join(reversed(found))


def with_descriptions(schema: dict[str, Any], keys: list[Described]) -> dict[str, Any]:
    """The schema with each key's description. Raises ``ValueError`` for a key that it does not have."""
    result: dict[str, Any] = json.loads(json.dumps(schema))
    for key in keys:
        node = result
        for name in key.path:
            if name not in node.get("properties", {}):
                raise ValueError(f"the schema has no {'.'.join(key.path)}")
            node = node["properties"][name]
        rest = {name: value for name, value in node.items() if name != "description"}
        node.clear()
        node.update({"description": key.text, **rest})
    return result


def with_required(schema: dict[str, Any], keys: list[Described]) -> dict[str, Any]:
    """The schema, asking for each key that null may not take away, and for the sections above it."""
    result: dict[str, Any] = json.loads(json.dumps(schema))
    sections = {key.path[:depth] for key in keys for depth in range(1, len(key.path))}
    needed = sections | {key.path for key in keys if not key.can_be_null}
    for path in [(), *sorted(sections)]:
        node = result
        for name in path:
            node = node["properties"][name]
        node.pop("required", None)
        if names := [name for name in node["properties"] if (*path, name) in needed]:
            node["required"] = names
    return result


def with_table(readme: str, keys: list[Described]) -> str:
    """The README with its table of values. Raises ``ValueError`` if it has no place for one."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks {BEGIN if not begin else END}")
    rows = [f"| `{'.'.join(key.path)}` | {_shown(key)} | {key.text} |" for key in keys if not key.is_section]
    return "\n".join((before + begin, "", "| key | default | meaning |", "|---|---|---|", *rows, "", end + after))


def _shown(key: Described) -> str:
    return f"`{json.dumps(key.default)}`"


def schema_text(schema: dict[str, Any]) -> str:
    """The schema as its file has it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write both files anew."""
    try:
        keys = described_keys((CHART / "values.yaml").read_text())
        schema_file, readme_file = CHART / "values.schema.json", CHART / "README.md"
        described = with_descriptions(json.loads(schema_file.read_text()), keys)
        schema_file.write_text(schema_text(with_required(described, keys)))
        readme_file.write_text(with_table(readme_file.read_text(), keys))
    except ValueError as error:
        sys.exit(f"document.py: {error}")


if __name__ == "__main__":
    main()
