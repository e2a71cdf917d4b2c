"""What is refused is told in our words, with the numbers of the model that is served."""

import json
from typing import get_args

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError
from pydantic_core import core_schema

from server.http.answers import from_validation
from server.http.wording import sentence
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate
from tests.server.live_server import LiveServer, serving
from tests.server.test_bad_input import FIELDS, JSON, VALUES, WRONG_FIELDS, st

FRAMEWORK = ("Input", "should", "valid ", "String", "pydantic", "Value error", "Expecting", "union", "None", "Field ")
"""Words of the validator and of the JSON parser."""


def assert_ours(message: str) -> None:
    assert not any(word in message for word in FRAMEWORK), message


def message(live: LiveServer, body: object, address: str = "/v1/videos") -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(live.url + address, content=content, headers=JSON)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["message"])


SENTENCES = [
    ({}, "prompt: this field is required"),
    ({"prompt": ""}, "prompt: the prompt is empty; describe the video in a few words"),
    ({"prompt": "a" * 4001}, "prompt: the prompt has 4001 characters; at most 4000 are taken"),
    ({"prompt": 5}, "prompt: this must be text, or a list of prompts with their times"),
    ({"prompt": None}, "prompt: this must be text, or a list of prompts with their times, not null"),
    ({"prompt": []}, "prompt: this has 0 entries; at least 1 is needed"),
    ({"prompt": ["a"]}, "prompt[0]: this must be a JSON object, not text"),
    ({"prompt": [{"at_seconds": "0", "prompt": "a"}]}, "prompt[0].at_seconds: this must be a number, not text"),
    (
        {"prompt": [{"at_seconds": n, "prompt": "a"} for n in range(65)]},
        "prompt: this has 65 entries; at most 64 are taken",
    ),
    ({"prompt": "a", "seconds": 0}, "seconds: this must be above 0"),
    ({"prompt": "a", "seconds": 86_401}, "seconds: 86401 is above 86400, the limit of this server"),
    ({"prompt": "a", "seconds": []}, "seconds: this must be a number, not a list"),
    ({"prompt": "a", "seconds": float("nan")}, "seconds: this must be a number that is not infinite and not NaN"),
    ({"prompt": "a", "seed": 0.5}, "seed: this must be a whole number, not a fraction"),
    ({"prompt": "a", "seed": True}, "seed: this must be a whole number, not true or false"),
    ({"prompt": "a", "seed": 2**64}, "seed: this must be 18446744073709551615 or less"),
    ({"prompt": "a", "fps": 121}, "fps: 121 is above 60, the highest of this model"),
    ({"prompt": "a", "fps": 0}, "fps: this must be 1 or more"),
    ({"prompt": "a", "size": "832"}, "size: this must be WIDTHxHEIGHT; choose 416x240 or 832x480"),
    ({"prompt": "a", "quality": "best"}, "quality: this must be draft, standard or high"),
    ({"prompt": "a", "colour": 1}, "colour: this field is not known; remove it or check its spelling"),
    ([], "the body: this must be a JSON object, not a list"),
    (b"{'prompt': 1}", "the body is not JSON: see line 1, column 2"),
]


@pytest.mark.parametrize(("body", "told"), SENTENCES, ids=[told for _, told in SENTENCES])
def test_sentences(shared: LiveServer, body: object, told: str) -> None:
    assert message(shared, body) == told


@pytest.mark.parametrize("body", [body for body, _ in WRONG_FIELDS])
def test_no_wrong_field_is_told_in_other_words(shared: LiveServer, body: object) -> None:
    assert_ours(message(shared, body, "/v1/generate"))


def test_the_limit_of_the_server_is_the_one_told() -> None:
    with serving(max_seconds=30) as live:
        assert (
            message(live, {"prompt": "a", "seconds": 90_000}) == "seconds: 90000 is above 30, the limit of this server"
        )


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_no_kind_of_error_is_told_in_other_words(kind: str) -> None:
    """Also those that no field of ours can have today."""
    context = {"max_length": 1, "actual_length": 2, "min_length": 1, "gt": 1, "ge": 1, "lt": 1, "le": 1}
    details = {"type": kind, "loc": ("x",), "msg": "Input should be", "input": 1, "ctx": {**context, "expected": "a"}}
    if kind != "value_error":  # which is always ours
        assert_ours(sentence(details))  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([GenerateRequest, VideoCreate, PromptChange]),
    VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES),
)
def test_whatever_is_refused_is_told_in_our_words(
    model: type[GenerateRequest | VideoCreate | PromptChange], value: object
) -> None:
    try:
        model.model_validate(value)
    except ValidationError as error:
        told = from_validation(error).message
        assert "not a value that is taken here" not in told
        assert not any(word in told.partition(": ")[2] for word in FRAMEWORK), told
