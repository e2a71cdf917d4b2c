"""The player's files over HTTP: a fixed list, checked by their ETag, under a policy that lets no other origin in."""

import re

import httpx

from server.player.files import NAMES, PAGE
from server.shipped import PLAYER
from tests.server.live_server import LiveServer

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def test_every_file_of_the_folder_is_served_as_it_is(live: LiveServer) -> None:
    assert sorted([PAGE, *NAMES]) == sorted(path.name for path in PLAYER.iterdir())
    with httpx.Client(base_url=live.url) as client:
        for name in NAMES:
            answer = client.get(f"/{name}")
            assert answer.content == (PLAYER / name).read_bytes()
            assert answer.headers["content-type"].startswith(TYPES[name.rpartition(".")[2]])
            assert answer.headers["cache-control"] == "no-cache"
            again = client.get(f"/{name}", headers={"If-None-Match": f'W/{answer.headers["etag"]}, "other"'})
            assert (again.status_code, again.content) == (304, b"")
            assert client.get(f"/{name}", headers={"If-None-Match": '"other"'}).status_code == 200
        for stranger in ("/player.py", "/%2e%2e/demo.py", "/../demo.py", "/index.html"):
            assert client.get(stranger).status_code == 404


def test_the_page_names_only_files_that_are_served_and_allows_nothing_inline(live: LiveServer) -> None:
    page = httpx.get(live.url)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'" and "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer", "its address may hold a viewer's token"
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", page.text)
    assert set(re.findall(r'(?:src|href)="([\w.]+\.\w+)"', page.text)) <= set(NAMES)
    for name in NAMES:
        imported = re.findall(r'from "\./([\w.]+)"', (PLAYER / name).read_text())
        assert set(imported) <= set(NAMES), name
