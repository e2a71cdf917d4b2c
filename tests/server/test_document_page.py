"""The page that shows the API: complete, offline, and open."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import httpx

from server.document.operations import OPERATIONS
from server.document.page import BASE
from tests.server.live_server import LiveServer
from tests.server.test_document import DOCUMENT, IDS

VOID = {"meta", "link"}


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def seen(text: str) -> Seen:
    parser = Seen()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_it_is_well_formed_and_every_link_leads_somewhere(shared: LiveServer) -> None:
    tags = seen(httpx.get(f"{shared.url}/docs").text).tags
    ids = [one["id"] for _, one in tags if "id" in one]
    assert len(ids) == len(set(ids))
    assert set(IDS) | set(DOCUMENT["components"]["schemas"]) <= set(ids)
    links = {one["href"] for name, one in tags if name == "a"}
    others = {link for link in links if link is not None and not link.startswith("#")}
    assert others == {"/openapi.json", "/"} and others <= {row.path for row in OPERATIONS}
    assert {f"#{name}" for name in ids} >= links - others


def test_it_needs_nothing_but_itself(shared: LiveServer) -> None:
    answer = httpx.get(f"{shared.url}/docs")
    names = {name for name, _ in seen(answer.text).tags}
    assert not names & {"script", "img", "iframe", "object", "form"}
    policy = answer.headers["content-security-policy"]
    style = re.search(r"<style>(.*)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"(url\(|@import|https?://)", style[1])


def test_it_is_open_and_its_commands_ask_this_server(locked: LiveServer) -> None:
    answer = httpx.get(f"{locked.url}/docs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert f"curl -sS {locked.url}/v1/videos" in answer.text
    assert BASE not in answer.text and "$HIAR_KEY" in answer.text


def test_a_name_of_the_server_cannot_carry_markup(shared: LiveServer) -> None:
    for host in ("localhost<b>", 'localhost"', "localhost/<script>"):
        sent = f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        assert not shared.send_raw(sent).startswith(b"HTTP/1.1 200")


def values(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [text for one in part.values() for text in values(one)]
    if isinstance(part, list):
        return [text for one in part for text in values(one)]
    return [part] if isinstance(part, str) else []


def test_every_address_and_code_is_there(shared: LiveServer) -> None:
    text = httpx.get(f"{shared.url}/docs").text
    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in text
    codes = {code for one in DOCUMENT["components"]["responses"].values() for code in values(one) if "_" in code}
    assert "rate_limited" in codes and "<code>rate_limited</code>" in text
