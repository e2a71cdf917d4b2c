"""Viewer tokens: what they open, for how long, and how they travel."""

import time
from pathlib import Path

import httpx
import pytest

from server.http.keys import LOOK_S
from server.http.tokens import LIFETIME_S, ViewerTokens, split_query, with_token
from tests.server.keyed_server import ALICE, BOB, create, line
from tests.server.live_server import LiveServer, serving


def test_a_token_opens_one_video_for_reading(clean: LiveServer) -> None:
    one, other = create(clean, ALICE).json(), create(clean, ALICE).json()
    token = one["urls"]["content"].partition("?token=")[2]
    assert one["urls"]["stream"].endswith(f"?token={token}") and token != other["urls"]["stream"].partition("=")[2]

    def status(method: str, path: str) -> int:
        return httpx.request(method, f"{clean.url}{path}{'&' if '?' in path else '?'}token={token}").status_code

    own = f"/v1/videos/{one['id']}"
    told = httpx.get(f"{clean.url}{own}?token={token}").json()
    assert told["id"] == one["id"] and told["urls"] == one["urls"], "a viewer's token does not renew itself"
    assert status("HEAD", f"{own}/stream") == status("HEAD", f"{own}/stream?from=0") == status("GET", own) == 200
    for method, path in (
        ("POST", f"{own}/cancel"),
        ("DELETE", own),
        ("GET", f"/v1/videos/{other['id']}"),
        ("GET", "/v1/videos"),
        ("POST", "/v1/videos"),
        ("GET", f"{own}?token={token}"),
    ):
        assert status(method, path) == 401, (method, path)


def test_a_token_ends_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line("alice", ALICE))
    with serving(keys=path) as live:
        address = live.url + create(live, ALICE).json()["urls"]["stream"]
        assert httpx.head(address).status_code == 200
        path.write_text(line("bob", BOB))
        time.sleep(LOOK_S)
        assert httpx.head(address).status_code == 404


def test_tokens_expire_and_are_bound() -> None:
    now = [1_000_000.0]
    tokens = ViewerTokens(b"secret", clock=lambda: now[0])
    token = tokens.make("video_a")
    assert tokens.opens(token, "video_a") and not tokens.opens(token, "video_b")
    assert tokens.make("video_a") == token and ViewerTokens(b"other").make("video_a") != token
    now[0] += LIFETIME_S
    assert tokens.opens(token, "video_a")
    now[0] += 3601
    assert not tokens.opens(token, "video_a")
    later = str(int(token[1:].partition(".")[0]) + 7200)
    for wrong in ("", "v1.", token[:-1], token + "A", f"v{later}.{token.partition('.')[2]}", "v1.\u00e9" + "a" * 42):
        assert not tokens.opens(wrong, "video_a")


@pytest.mark.parametrize(
    ("query", "rest", "token"),
    [
        (b"", b"", None),
        (b"from=3", b"from=3", None),
        (b"token=a", b"", "a"),
        (b"from=3&token=a&x=1", b"from=3&x=1", "a"),
        (b"token=a&token=b", b"", None),
        (b"tokens=a", b"tokens=a", None),
    ],
)
def test_a_query_is_parted_from_its_token(query: bytes, rest: bytes, token: str | None) -> None:
    assert split_query(query) == (rest, token)


def test_an_address_takes_a_token() -> None:
    assert with_token("/a", None) == "/a"
    assert with_token("/a", "t") == "/a?token=t" and with_token("/a?b=1", "t") == "/a?b=1&token=t"
