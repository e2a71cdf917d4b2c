"""A Hugging Face hub on a loopback port, with what ``hiar-download`` asks of one: a listing, and files with ranges."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 1000
"""A file of this size or more has a SHA-256; a smaller one has only git's checksum."""


@dataclass
class HubSite:
    """What the hub holds, how it misbehaves, and what it was asked."""

    repos: dict[str, dict[str, bytes]]
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers by the start of a path."""
    cuts: dict[str, int] = field(default_factory=dict)
    """Path of a file -> bytes after which its connection is cut, once; then it is refused, once."""
    altered: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a file."""
    gate: threading.Event | None = None
    """No file is sent before it is set."""
    served: list[tuple[str, str | None]] = field(default_factory=list)
    """Every file asked for, and the range of it."""
    tokens: list[str | None] = field(default_factory=list)
    """What every request showed."""
    url: str = ""

    def listing(self, repo: str) -> dict[str, Any]:
        return {"id": repo, "sha": COMMIT, "siblings": [_sibling(*item) for item in self.repos[repo].items()]}


@contextmanager
def hub_site(repos: Mapping[str, Mapping[str, bytes]]) -> Iterator[HubSite]:
    site = HubSite({repo: dict(files) for repo, files in repos.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    site: HubSite

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.site.tokens.append(self.headers.get("Authorization"))
        refusal = next((answer for start, answer in self.site.refusals.items() if path.startswith(start)), None)
        if refusal is not None:
            self._send(refusal[0], b"", refusal[1])
        elif path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            repo, _, rest = path[1:].partition("/resolve/")
            self._send_file(repo, unquote(rest.partition("/")[2]))
        else:
            self._send(404, b"")

    def _list(self, asked: str) -> None:
        repo, _, revision = asked.partition("/revision/")
        if repo not in self.site.repos:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in {"", "main", COMMIT}:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(200, json.dumps(self.site.listing(repo)).encode())

    def _send_file(self, repo: str, name: str) -> None:
        asked = self.headers.get("Range")
        self.site.served.append((name, asked))
        if self.site.gate is not None:
            self.site.gate.wait(100)
        content = self.site.altered.get(name, self.site.repos[repo][name])
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if name in self.site.cuts:
            self._cut(name, content)
        elif asked:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], {"Content-Range": place})
        else:
            self._send(200, content)

    def _cut(self, name: str, content: bytes) -> None:
        num_bytes = self.site.cuts.pop(name)
        self.site.refusals[f"/{self.path[1:]}"] = (503, {})
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:num_bytes])

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
