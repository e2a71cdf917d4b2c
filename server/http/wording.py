"""What is wrong with a field, in our words: the validator's own are about its types and name no remedy.

Knows no field. A value is never repeated: it may be huge or not printable.
"""

from collections.abc import Callable
from typing import Any

from pydantic_core import ErrorDetails

UNION_TAGS = frozenset({"text", "schedule"})
"""Names that the validator puts into a location for the branch it took; callers never wrote them."""

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "model_type": "a JSON object",
}
_Context = dict[str, Any]
_SENTENCES: dict[str, Callable[[_Context], str]] = {
    "missing": lambda told: "this field is required",
    "extra_forbidden": lambda told: "this field is not known; remove it or check its spelling",
    "string_unicode": lambda told: "this holds half of a surrogate pair, which is not text",
    "string_too_long": lambda told: f"this is longer than {told['max_length']} characters",
    "string_too_short": lambda told: f"this has less than {told['min_length']} characters",
    "too_long": lambda told: f"this has {told['actual_length']} entries; at most {told['max_length']} are taken",
    "too_short": lambda told: f"this has {told['actual_length']} entries; at least {told['min_length']} is needed",
    "greater_than": lambda told: f"this must be above {_number(told['gt'])}",
    "greater_than_equal": lambda told: f"this must be {_number(told['ge'])} or more",
    "less_than": lambda told: f"this must be below {_number(told['lt'])}",
    "less_than_equal": lambda told: f"this must be {_number(told['le'])} or less",
    "literal_error": lambda told: f"this must be {told['expected'].replace(chr(39), '')}",
    "finite_number": lambda told: "this must be a number that is not infinite and not NaN",
    "int_parsing_size": lambda told: "this is too large a number",
    "value_error": lambda told: str(told["error"]),
}


def sentence(error: ErrorDetails) -> str:
    """What is wrong and what is taken."""
    kind = error["type"]
    if kind in _WANTED:
        wanted = "text, or a list of prompts with their times" if _is_choice(error) else _WANTED[kind]
        return f"this must be {wanted}{_instead(error['input'])}"
    if kind in _SENTENCES:
        return _SENTENCES[kind](error.get("ctx", {}))
    return "this is not a value that is taken here"


def _is_choice(error: ErrorDetails) -> bool:
    """Whether another kind of value would be taken too."""
    return error["loc"][-1:] == ("text",)


def _instead(value: object) -> str:
    if type(value) is float:
        return ", not a fraction" if value % 1 else ""
    return f", not {_KINDS[type(value)]}" if type(value) in _KINDS and type(value) is not int else ""


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
