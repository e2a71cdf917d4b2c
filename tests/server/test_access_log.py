"""The access log: one line a request, refused ones too, and what it must not tell."""

import json
import logging
from typing import Any

import httpx
import pytest

from engine import WorkerLost
from server.errors import INVALID_REQUEST, ApiError
from server.http.access_log import tell_refused
from server.logs import FIELDS, JsonLines
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, bearer, create
from tests.server.live_server import LiveServer, eventually, serving

LOG = "hiar.access"
NAMES = ["request_id", "key", "method", "path", "status", "video_id", "ms", "bytes", "end_reason"]


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    """What the newest requests left behind, as JSON."""

    def records() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == LOG]

    eventually(lambda: len(records()) >= count)
    told = [json.loads(JsonLines().format(record)) for record in records()]
    assert len(told) == count and all(list(line) == ["time", "level", "logger", *NAMES] for line in told)
    return told


def test_a_stream_is_told_when_it_is_over(live: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a secret fox", "seconds": 1})
    (line,) = lines(caplog, 1)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"], line["key"]) == ("POST", "/v1/generate", 200, None)
    assert (line["video_id"], line["end_reason"]) == (answer.headers["x-video-id"], "completed")
    assert line["bytes"] == len(answer.content) and 0 <= line["ms"] < 5000
    assert "secret" not in caplog.text


def test_a_client_that_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Behaviour(block_s=0.2)) as live:
        with httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "x"}) as answer:
            next(answer.iter_raw())
        (line,) = lines(caplog, 1)
    assert (line["status"], line["end_reason"]) == (200, "client_disconnect")


def test_a_stream_that_broke_is_told_with_what_broke_it(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Behaviour(fail_at=1, failure=WorkerLost("gone"))) as live:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{live.url}/v1/generate", json={"prompt": "x"})
        (line,) = lines(caplog, 1)
    assert (line["status"], line["end_reason"]) == (200, "worker_lost")


def test_refusals_are_told_with_their_code(clean: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    made = create(clean, ALICE).json()
    httpx.post(f"{clean.url}/v1/videos", json={"prompt": "a secret fox"})
    httpx.head(clean.url + made["urls"]["stream"])
    httpx.get(f"{clean.url}/v1/videos/{made['id']}", headers=bearer(BOB))
    httpx.get(f"{clean.url}/v1/videos?limit=0&prompt=secret", headers=bearer(BOB))
    httpx.get(f"{clean.url}/v1/models", headers={"Host": "evil.example"})
    httpx.get(f"{clean.url}/livez")
    told = lines(caplog, 6)
    assert [(line["key"], line["status"], line["end_reason"]) for line in told] == [
        ("alice", 200, None),
        (None, 401, "unauthorized"),
        (None, 200, "client_disconnect"),
        ("bob", 404, "not_found"),
        ("bob", 400, "invalid_request"),
        (None, 421, "unknown_host"),
    ]
    assert [line["video_id"] for line in told[:4]] == [made["id"], None, made["id"], made["id"]]
    assert told[2]["method"] == "HEAD" and told[2]["path"] == f"/v1/videos/{made['id']}/stream"
    for word in ("secret", ALICE, BOB, made["urls"]["stream"].partition("token=")[2]):
        assert not [record for record in caplog.records if record.name != "httpx" and word in record.getMessage()]


def test_what_was_no_request_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    tell_refused(ApiError(INVALID_REQUEST, "this is not HTTP"))
    (line,) = lines(caplog, 1)
    assert (line["status"], line["end_reason"], line["path"]) == (400, "invalid_request", None)


def test_a_line_for_people(live: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    request_id = httpx.get(f"{live.url}/v1/videos/%0d%0a%22?x").headers["x-request-id"]
    lines(caplog, 1)
    (text,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    start, _, end = text.partition(" ms ")
    assert start.rpartition(" ")[0] == f"{request_id} - GET /v1/videos/%0d%0a%22 404 -"
    assert end.endswith(" B not_found")


def test_every_record_is_a_json_object_of_one_line() -> None:
    record = logging.LogRecord("a.b", logging.WARNING, "", 0, "two\nlines of %s \u00e9", ("text",), None)
    line = JsonLines().format(record)
    assert "\n" not in line and line.isascii()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("warning", "a.b", "two\nlines of text \u00e9")
    assert told["time"].endswith("Z") and not hasattr(record, FIELDS)
