"""Keys: the file, who is let in where, whose videos are whose, and what a key may do."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import EngineOptions, VideoHandle
from server.document.operations import OPEN, PROBED
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, SLOW, VIDEO, bearer, create, line
from tests.server.live_server import LiveServer, serving


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- who is let in ---


def test_every_route_that_does_not_say_otherwise_needs_a_key(locked: LiveServer) -> None:
    asked = 0
    for route in locked.app.routes:
        path: str = route.path
        address = locked.url + path.replace("{video_id}", "video_1").replace("{name}", "instant")
        for method in getattr(route, "methods", ()):
            answer = httpx.request(method, address)
            if path in OPEN and method in ("GET", "HEAD"):
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, path
                asked += 1
    assert asked >= 9
    for method, path in (("GET", "/nothing"), ("POST", "/v1/models"), ("GET", "/v1/models/"), ("GET", "//v1/models")):
        assert httpx.request(method, locked.url + path).status_code == 401, path


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("hiar_"),
        {"Authorization": ""},
        bearer(ALICE[:-1]),
        bearer(ALICE + "x"),
        bearer(ALICE.upper()),
        bearer("x" * 10_000),
        {"Authorization": ALICE},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": f"Bearer{ALICE}"},
        {"X-Api-Key": ALICE},
        [("Authorization", f"Bearer {ALICE}"), ("Authorization", f"Bearer {ALICE}")],
        [("Authorization", b"Bearer \xff\xfe")],
    ],
)
def test_what_is_no_key_is_401(locked: LiveServer, headers: Any) -> None:
    answer = httpx.get(f"{locked.url}/v1/videos", headers=headers)
    assert error_of(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_is_let_in(locked: LiveServer, scheme: str) -> None:
    answer = httpx.get(f"{locked.url}/v1/videos", headers={"Authorization": f"{scheme} {BOB}"})
    assert answer.status_code == 200


def test_a_key_is_asked_for_before_the_body_is_read(locked: LiveServer) -> None:
    head = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    began_s = time.monotonic()
    answer = locked.send_raw(head + b"Content-Length: 60000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer
    assert time.monotonic() - began_s < 3, "it lingers for a second, not for the body"


def test_a_page_gets_to_read_that_a_key_is_needed(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(line("alice", ALICE))
    with serving(keys=tmp_path / "keys", cors_origins=("https://app.example",)) as live:
        page = {"Origin": "https://app.example"}
        refused = httpx.get(f"{live.url}/v1/videos", headers=page)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, page["Origin"])
        wanted = {**page, "Access-Control-Request-Method": "POST"}
        assert httpx.options(f"{live.url}/v1/videos", headers=wanted).status_code == 204


# --- whose videos ---


def test_a_key_sees_its_own_videos_only(clean: LiveServer) -> None:
    made = create(clean, ALICE).json()
    missing = httpx.get(f"{clean.url}/v1/videos/video_0", headers=bearer(BOB)).json()
    for method, rest in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/prompt"),
        ("GET", "/stream"),
        ("GET", "/content"),
        ("GET", "/whatever/a%0Alater%0Aroute"),
    ):
        address = f"{clean.url}/v1/videos/{made['id']}{rest}"
        body = {"prompt": "y"} if rest == "/prompt" else None
        answer = httpx.request(method, address, headers=bearer(BOB), json=body)
        assert answer.status_code == 404, rest
        assert answer.json()["error"]["message"].replace(made["id"], "video_0") == missing["error"]["message"]
    assert httpx.get(f"{clean.url}/v1/videos", headers=bearer(BOB)).json()["data"] == []
    assert httpx.get(f"{clean.url}/v1/videos?after={made['id']}", headers=bearer(BOB)).status_code == 400
    (listed,) = httpx.get(f"{clean.url}/v1/videos", headers=bearer(ALICE)).json()["data"]
    assert listed["id"] == made["id"]
    assert httpx.delete(f"{clean.url}/v1/videos/{made['id']}", headers=bearer(ALICE)).status_code == 200


# --- what a key may do ---


def test_videos_at_a_time(clean: LiveServer) -> None:
    first = create(clean, BOB)
    assert first.status_code == 200
    for path in ("/v1/videos", "/v1/generate"):
        refused = httpx.post(clean.url + path, json=VIDEO, headers=bearer(BOB))
        assert error_of(refused) == (429, "rate_limited") and int(refused.headers["retry-after"]) > 0
    assert [create(clean, ALICE).status_code for _ in range(4)] == [200, 200, 200, 429], "the server's own limit"
    httpx.delete(f"{clean.url}/v1/videos/{first.json()['id']}", headers=bearer(BOB))
    assert create(clean, BOB).status_code == 200


def test_requests_a_minute(locked: LiveServer) -> None:
    answers = [httpx.get(f"{locked.url}/v1/videos", headers=bearer(SLOW)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert error_of(answers[-1])[1] == "rate_limited" and 25 <= int(answers[-1].headers["retry-after"]) <= 30
    assert httpx.get(f"{locked.url}/v1/videos", headers=bearer(BOB)).status_code == 200


def test_priority_is_for_whom_the_operator_allows_it(clean: LiveServer, live: LiveServer) -> None:
    assert create(clean, ALICE, priority=5).status_code == 200
    assert clean.engine.opened[-1].request.priority == 5
    for answer in (create(clean, ALICE, priority=6), create(clean, BOB, priority=1), create(live, "", priority=1)):
        assert error_of(answer) == (403, "forbidden") and answer.json()["error"]["param"] == "priority"


def test_addresses_are_limited_where_there_are_no_keys() -> None:
    behaviour = Behaviour(first_block_s=3600)
    with serving(behaviour, max_per_client=2, engine=EngineOptions(max_videos=1, max_queue=9)) as live:
        assert [create(live, "").status_code for _ in range(3)] == [200, 200, 429]
        spoofed = httpx.post(f"{live.url}/v1/videos", json=VIDEO, headers={"X-Forwarded-For": "192.0.2.1"})
        assert spoofed.status_code == 429


def test_probes_are_open(locked: LiveServer) -> None:
    for path in PROBED:
        assert httpx.get(locked.url + path, headers={"Host": "10.0.0.9"}).status_code == 200
    assert httpx.get(f"{locked.url}/v1/capabilities").json()["needs_key"] is True


def test_the_owner_of_a_video_is_with_its_request(clean: LiveServer) -> None:
    create(clean, ALICE)
    video: VideoHandle = clean.engine.opened[-1]
    assert video.request.owner == "key alice"


def test_a_route_that_knows_of_no_owner_is_guarded_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(line("alice", ALICE) + line("bob", BOB))

    async def later(video_id: str) -> str:
        return video_id

    with serving(keys=tmp_path / "keys") as live:
        live.app.add_api_route("/v1/videos/{video_id}/later", later, methods=["GET", "POST"])
        made = create(live, ALICE).json()
        address, token = f"{live.url}/v1/videos/{made['id']}/later", made["urls"]["content"].partition("?")[2]
        assert httpx.get(address, headers=bearer(ALICE)).json() == made["id"]
        assert httpx.get(f"{address}?{token}").json() == made["id"]
        assert [httpx.get(address, headers=bearer(BOB)).status_code, httpx.get(address).status_code] == [404, 401]
        assert httpx.post(f"{address}?{token}").status_code == 401
