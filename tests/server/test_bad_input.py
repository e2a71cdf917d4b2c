"""Whatever comes in, the answer is typed, names the field, and is never a 5xx."""

import json
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.instant import Behaviour
from tests.server.live_server import LiveServer, read_all, serving

pytestmark = pytest.mark.in_turn

LIMIT = 65_536
JSON = {"content-type": "application/json"}


def post(live: LiveServer, content: bytes, headers: dict[str, str] = JSON) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/generate", content=content, headers=headers)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "param", "type"]
    return body["error"]


def assert_refused(answer: httpx.Response, param: str | None, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["param"] == param, error
    assert len(error["message"]) < 400
    return error


WRONG_FIELDS = [
    ({"prompt": "a", "colour": 1}, "colour"),
    ({}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": True}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n\t"}, "prompt"),
    ({"prompt": "a" * 4001}, "prompt"),
    ({"prompt": "a\x00b"}, "prompt"),
    ({"prompt": "a\x1b[31mb"}, "prompt"),
    ({"prompt": "a\x85b"}, "prompt"),
    ({"prompt": "\ud800"}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a"]}, "prompt[0]"),
    ({"prompt": [{"at_seconds": 1, "prompt": "a"}]}, "prompt"),
    ({"prompt": [{"at_seconds": 0, "prompt": "a"}, {"at_seconds": 0, "prompt": "b"}]}, "prompt"),
    ({"prompt": [{"at_seconds": 0, "prompt": "a"}, {"at_seconds": -1, "prompt": "b"}]}, "prompt[1].at_seconds"),
    ({"prompt": [{"at_seconds": float("nan"), "prompt": "a"}]}, "prompt[0].at_seconds"),
    ({"prompt": [{"at_seconds": 0, "prompt": ""}]}, "prompt[0].prompt"),
    ({"prompt": [{"at_seconds": 0}]}, "prompt[0].prompt"),
    ({"prompt": [{"at_seconds": 0, "prompt": "a", "x": 1}]}, "prompt[0].x"),
    ({"prompt": [{"at_seconds": n, "prompt": "a"} for n in range(65)]}, "prompt"),
    (
        {"seconds": 2, "prompt": [{"at_seconds": 0, "prompt": "a"}, {"at_seconds": 2, "prompt": "b"}]},
        "prompt[1].at_seconds",
    ),
    *(({"prompt": "a", "seconds": value}, "seconds") for value in (0, -0.0, -1, "5", True, [], 1e308, 86_401)),
    *(({"prompt": "a", "seconds": float(value)}, "seconds") for value in ("nan", "inf", "-inf")),
    *(({"prompt": "a", "seed": value}, "seed") for value in (-1, 2**64, 1.5, "1", True, float("nan"))),
    *(({"prompt": "a", "size": value}, "size") for value in ("", "1x1", "832", "832X480", "480x832", 832, "8x8\n")),
    *(({"prompt": "a", "fps": value}, "fps") for value in (0, -1, 61, 121, 16.5, 1e308, "16", True)),
    *(({"prompt": "a", "pace": value}, "pace") for value in ("", "slow", 1)),
    *(({"prompt": "a", "quality": value}, "quality") for value in ("", "best", None)),
    *(({"prompt": "a", "priority": value}, "priority") for value in (-1, 10, 0.5, False)),
    *(({"prompt": "a", "model": value}, "model") for value in ("", "other", 1, "\ud800")),
    ([], None),
    ("text", None),
    (None, None),
]


@pytest.mark.parametrize(("body", "param"), WRONG_FIELDS)
def test_a_wrong_field_is_named(shared: LiveServer, body: object, param: str | None) -> None:
    error = assert_refused(post(shared, json.dumps(body).encode()), param)
    assert error["code"] == "invalid_request"


@pytest.mark.parametrize("stays_starting", [False, True])
def test_what_the_model_does_not_make_is_told_with_what_it_makes(stays_starting: bool) -> None:
    """While it loads too: such a request need not be sent again."""
    with serving(Behaviour(stays_starting=stays_starting)) as live:
        size = assert_refused(post(live, b'{"prompt": "a", "size": "480x832"}'), "size")
        fps = assert_refused(post(live, b'{"prompt": "a", "fps": 61}'), "fps")
    assert size["message"] == "size: 480x832 is not offered; choose 416x240 or 832x480"
    assert fps["message"] == "fps: 61 is above 60, the highest of this model"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "seconds": 0.5},
        {"prompt": "x" * 4000, "seconds": 0.5},
        {"prompt": "😀" * 4000, "seconds": 0.5},
        {"prompt": "line\nbreak\tand \u202ertl", "seconds": 0.5},
        {"prompt": "x", "seconds": 1e-9},
        {"prompt": "x", "seconds": 1, "size": None, "fps": 60, "seed": 0, "model": None},
        {"prompt": "x", "seconds": 1, "fps": 16.0, "seed": 7.0, "priority": 0.0},
    ],
)
def test_what_is_just_within_bounds_is_served(shared: LiveServer, body: dict[str, object]) -> None:
    assert post(shared, json.dumps(body, ensure_ascii=False).encode()).status_code == 200


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"", None),
        (b"{", None),
        (b'{"prompt": "a"} x', None),
        (b"\xef\xbb\xbf{}", None),
        (b'{"prompt": "\xff"}', None),
        (b"[" * 30_000, None),
        (b'{"a":' * 10_000, None),
        (b'{"prompt": "a", "prompt": "b"}', "prompt"),
        (b'{"prompt": [{"at_seconds": 0, "at_seconds": 0, "prompt": "b"}]}', "at_seconds"),
        (b"{" + b",".join(b'"%d":1' % n for n in range(7000)) + b"}", "prompt"),
        (b'{"\\ud800": 1, "prompt": "a"}', None),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", None),
        (b'{"prompt": "a", "seconds": 1e999}', "seconds"),
        (b'{"prompt": NaN}', "prompt"),
        (b'{"prompt": "a", "%s": 1}' % (b"k" * 9000), "k" * 64 + "..."),
    ],
)
def test_a_body_that_is_no_request(shared: LiveServer, content: bytes, param: str | None) -> None:
    assert_refused(post(shared, content), param)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"},
    ],
)
def test_a_wrong_content_type(shared: LiveServer, headers: dict[str, str]) -> None:
    error = assert_refused(post(shared, b'{"prompt": "a"}', headers), None, status=415)
    assert error["code"] == "unsupported_media_type"


def padded(num_bytes: int) -> bytes:
    body = b'{"prompt": "a", "seconds": 0.5}'
    return body + b" " * (num_bytes - len(body))


@pytest.mark.parametrize("chunked", [False, True])
def test_the_size_limit_is_exact(shared: LiveServer, chunked: bool) -> None:
    def send(num_bytes: int) -> httpx.Response:
        content = padded(num_bytes)
        pieces = iter([content[:40_000], content[40_000:]]) if chunked else content
        return httpx.post(f"{shared.url}/v1/generate", content=pieces, headers=JSON)

    assert send(LIMIT).status_code == 200
    refused = send(LIMIT + 1)
    assert assert_refused(refused, None, status=413)["code"] == "payload_too_large"
    assert refused.headers["connection"] == "close"


def test_a_huge_body_is_refused_before_it_is_read(shared: LiveServer) -> None:
    head = b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n"
    with socket.create_connection(shared.address, timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413"), "408 comes to who waits for a body in vain"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: -1", 400),
        (b"Content-Length: abc", 400),
        (b"Content-Length: 5\r\nContent-Length: 6", 400),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: gzip", 501),
        (b"Bad Header: x", 400),
    ],
)
def test_a_header_that_is_no_http(shared: LiveServer, fields: bytes, status: int) -> None:
    head = b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + fields + b"\r\n\r\n"
    answer = shared.send_raw(head + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d" % (400 if status == 501 else status)), answer[:200]
    assert b"connection: close" in answer.lower()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"


def head_of(num_bytes: int) -> bytes:
    start = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
    return start + b"y" * (num_bytes - len(start) - 4) + b"\r\n\r\n"


def target_of(num_bytes: int) -> bytes:
    return b"GET /livez?" + b"y" * (num_bytes - 7) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("piece_bytes", [1_000_000, 5000])
@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (head_of(LIMIT), 200, None),
        (head_of(LIMIT + 1), 431, "headers_too_large"),
        (head_of(100_000), 431, "headers_too_large"),
        (target_of(8192), 200, None),
        (target_of(8193), 414, "uri_too_long"),
        (target_of(60_000), 414, "uri_too_long"),
        (b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "unsupported_version"),
        (b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n", 505, "unsupported_version"),
        (b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, None),
    ],
)
def test_the_limits_of_a_head_are_exact(
    shared: LiveServer, head: bytes, status: int, code: str | None, piece_bytes: int
) -> None:
    with socket.create_connection(shared.address, timeout=5) as connection:
        with suppress(OSError):  # it answers as soon as it has seen too much
            for start in range(0, len(head), piece_bytes):
                connection.sendall(head[start : start + piece_bytes])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    if code is not None:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == code


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/gen",
        b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/generate HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_a_sender_that_stops_gets_408(shared: LiveServer, sent: bytes) -> None:
    answer = shared.send_raw(sent)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert b'"request_timeout"' in answer


def test_a_second_request_on_a_connection_has_a_deadline_too(shared: LiveServer) -> None:
    with socket.create_connection(shared.address, timeout=5) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /li")
        assert b"HTTP/1.1 408" in read_all(connection)


def test_connections_are_kept(shared: LiveServer) -> None:
    with httpx.Client(base_url=shared.url) as client:
        for _ in range(3):
            assert client.get("/livez").status_code == 200
            assert client.post("/v1/generate", json={"prompt": "a", "seconds": 0.5}).status_code == 200
            assert client.post("/v1/generate", json={}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/generate/", 404),
        ("GET", "/v1/videos/%2e%2e%2f%00", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/videos/../index.m3u8", 404),
        ("GET", "/v1/videos/x/blocks/..%2f..%2fetc%2fpasswd.m4s", 404),
        ("DELETE", "/v1/videos/unknown", 404),
        ("GET", "/v1/generate", 405),
        ("PUT", "/v1/videos/x", 405),
        ("HEAD", "/livez", 200),
        ("HEAD", "/v1/generate", 405),
        ("OPTIONS", "/v1/generate", 204),
        ("BREW", "/v1/generate", 405),
    ],
)
def test_other_methods_and_addresses(shared: LiveServer, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, shared.url + path)
    assert answer.status_code == status
    if status >= 400 and method != "HEAD":
        error_of(answer)
    if status in (204, 405):
        assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("prompt", "seconds", "seed", "size", "fps", "pace", "quality", "priority", "model", "other")
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6).map(lambda body: json.dumps(body).encode())


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=BODIES | st.binary(max_size=200))
def test_no_body_gives_a_5xx(shared: LiveServer, content: bytes) -> None:
    with httpx.stream("POST", f"{shared.url}/v1/generate", content=content, headers=JSON) as answer:
        assert answer.status_code in (200, 400), answer.read()
