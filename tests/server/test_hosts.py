"""Names that the server answers to, pages that may use it, and what it binds."""

import logging
import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from server.document.operations import OPEN, PROBED
from server.http.hosts import KnownHosts, split_host
from server.http.listener import listen
from server.settings import SettingError
from tests.server.live_server import LiveServer, serving

APP, ELSEWHERE = "https://app.example", "https://evil.example"


@pytest.fixture(scope="module")
def shared_with_app() -> Iterator[LiveServer]:
    with serving(cors_origins=(APP,)) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "allowed", "name", "is_known"),
    [
        ("127.0.0.1", (), "localhost", True),
        ("127.0.0.1", (), "127.9.9.9", True),
        ("127.0.0.1", (), "::1", True),
        ("127.0.0.1", (), "10.0.0.1", False),
        ("127.0.0.1", (), "evil.example", False),
        ("127.0.0.1", (), "localhost.evil.example", False),
        ("127.0.0.1", (), "127.0.0.1.evil.example", False),
        ("gpu-box", (), "gpu-box", True),
        ("10.0.0.1", (), "10.0.0.1", True),
        ("10.0.0.1", (), "10.0.0.2", False),
        ("0.0.0.0", (), "10.0.0.2", True),
        ("::", (), "2001:db8::1", True),
        ("0.0.0.0", (), "evil.example", False),
        ("127.0.0.1", ("Video.example",), "video.example", True),
        ("127.0.0.1", ("video.example",), "a.video.example", False),
        ("127.0.0.1", ("*.video.example",), "a.video.example", True),
        ("127.0.0.1", ("*.video.example",), "avideo.example", False),
        ("127.0.0.1", ("*",), "evil.example", True),
    ],
)
def test_known_names(host: str, allowed: tuple[str, ...], name: str, is_known: bool) -> None:
    assert KnownHosts(host, allowed).knows(name) is is_known


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("LocalHost:8000", ("localhost", "8000")),
        ("localhost.", ("localhost", None)),
        ("[::1]:80", ("::1", None)),
        ("a.example:443", ("a.example", None)),
        ("", None),
        ("a b", None),
        ("localhost:8000@evil.example", None),
        ("::1", None),
    ],
)
def test_a_host_header_is_read_strictly(header: str, parts: tuple[str, str | None] | None) -> None:
    assert split_host(header) == parts


def test_another_name_is_refused_before_anything_else(shared: LiveServer) -> None:
    named = {"Host": f"rebound.example:{shared.port}"}
    for method, path in (("GET", "/"), ("GET", "/v1/models"), ("POST", "/v1/generate"), ("OPTIONS", "/v1/videos")):
        answer = httpx.request(method, shared.url + path, headers={**named, "Origin": "http://rebound.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "unknown_host"), path
        assert "rebound.example" in answer.json()["error"]["message"]
    assert shared.engine.opened == []
    for path in PROBED:
        assert httpx.get(shared.url + path, headers=named).status_code == 200


def test_http_1_0_without_a_name_may_probe_only(shared: LiveServer) -> None:
    assert shared.send_raw(b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert shared.send_raw(b"GET /v1/models HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://localhost", "http://127.0.0.1:1", "file://127.0.0.1"])
def test_pages_of_other_origins_are_refused(shared: LiveServer, origin: str) -> None:
    asked = {"Origin": origin}
    preflight = {**asked, "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.post(f"{shared.url}/v1/videos", json={"prompt": "x"}, headers=asked),
        httpx.get(f"{shared.url}/v1/models", headers=asked),
        httpx.options(f"{shared.url}/v1/generate", headers=preflight),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_its_own_pages_are_served(shared: LiveServer, scheme: str) -> None:
    answer = httpx.get(f"{shared.url}/v1/models", headers={"Origin": f"{scheme}://127.0.0.1:{shared.port}"})
    assert answer.status_code == 200 and "vary" not in answer.headers


def test_an_allowed_page_may_ask_and_read(shared_with_app: LiveServer) -> None:
    url, asked = shared_with_app.url, {"Origin": APP}
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    preflight = httpx.options(f"{url}/v1/generate", headers={**asked, **wanted})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, APP)
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for name in ("authorization", "content-type", "idempotency-key"):
        assert name in preflight.headers["access-control-allow-headers"].lower()
    for answer in (
        httpx.post(f"{url}/v1/generate", json={"prompt": "x", "seconds": 1}, headers=asked),
        httpx.post(f"{url}/v1/generate", json={"prompt": ""}, headers=asked),
    ):
        assert answer.headers["access-control-allow-origin"] == APP
        assert "Origin" in answer.headers["vary"]
        assert {"X-Request-Id", "X-Video-Id", "Location"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )
        assert "access-control-allow-credentials" not in answer.headers
    assert httpx.get(f"{url}/v1/models", headers={"Origin": ELSEWHERE}).status_code == 403
    assert httpx.get(f"{url}/v1/models").headers["vary"] == "Origin"


def test_the_page_may_not_be_framed(shared: LiveServer) -> None:
    assert "frame-ancestors 'none'" in httpx.get(shared.url).headers["content-security-policy"]


def test_open_addresses_are_routes(shared: LiveServer) -> None:
    assert set(OPEN) <= {getattr(route, "path", None) for route in shared.app.routes}


# --- what it binds ---


def addresses(host: str, *, is_open: bool) -> list[str]:
    found = []
    for listener in listen(host, 0, is_open=is_open):
        with closing(listener):
            found.append(listener.getsockname()[0])
    return found


@pytest.mark.parametrize(
    ("host", "closed", "opened"),
    [
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.1"]),
        ("localhost", None, None),
        ("0.0.0.0", ["127.0.0.1"], ["0.0.0.0"]),
        ("::", ["::1", "127.0.0.1"], ["::"]),
    ],
)
def test_without_keys_only_loopback_is_bound(
    host: str, closed: list[str] | None, opened: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    told = addresses(host, is_open=False)
    assert told == closed or host == "localhost"
    assert ("--insecure" in caplog.text) is (closed != opened)
    assert addresses(host, is_open=True) == opened or host == "localhost"


def test_an_address_that_others_reach_needs_keys() -> None:
    with pytest.raises(SettingError, match=r"--host 192.0.2.1 can be reached .* --keys FILE, or --insecure"):
        listen("192.0.2.1", 0, is_open=False)


def test_all_of_ipv6_is_all_of_ipv4_too() -> None:
    (listener,) = listen("::", 0, is_open=True)
    with closing(listener), socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=2):
        pass


def test_both_loopbacks_share_a_port() -> None:
    listeners = listen("::", 0, is_open=False)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()
