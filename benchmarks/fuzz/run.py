"""Sends the cases to a server of its own and judges what comes back."""

import hashlib
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from benchmarks.fuzz.cases import cases

DOCUMENTED = frozenset({502, 503, 504, 505})
"""Statuses of 500 and above that an answer may have."""
GROWTH_MB = 64
"""More memory than this, after the first half of the cases, is a leak."""
_ANSWER_S = 0.5
_READ_BYTES = 16_384
_START_S = 120
_NO_ANSWER = "none"
_NO_HTTP = "no HTTP"
_KEY = "hiar_fuzz"


@dataclass(frozen=True)
class Outcome:
    """What the server did."""

    num_cases: int
    statuses: dict[str, int]
    took_s: float
    memory_mb: tuple[float, float]
    """Of the API's process: after the first half of the cases, and at the end."""
    log_bytes: int
    faults: list[str]


def fuzz(command: Sequence[str], num_cases: int, seed: int, num_connections: int, *, has_keys: bool = False) -> Outcome:
    """Start the server, send it the cases, and judge. ``has_keys``: whether it asks for a key."""
    key = _KEY if has_keys else None
    with tempfile.TemporaryFile() as log, _served([*command, "--port", "0"], log, key) as process:
        url = _address(log, process)
        with _client(url, key) as good:
            _await_ready(good, process)
            ids = [_create(good, seconds) for seconds in (1, 3600, 1)]
            document, host = good.get("/openapi.json").json(), good.base_url.netloc.decode()
            sent = cases(document, host, ids, num_cases, seed, key)
            began_s = time.monotonic()
            first, rest = sent[: num_cases // 2], sent[num_cases // 2 :]
            statuses = _send_all(good, first, num_connections, ids)
            memory_before = _memory_mb(process.pid)
            statuses += _send_all(good, rest, num_connections, ids)
            took_s = time.monotonic() - began_s
            faults = _faults(statuses) + _health(good, process)
        memory = memory_before, _memory_mb(process.pid)
        said = _said(log)
    faults += _growth(*memory) + _tracebacks(said)
    return Outcome(num_cases, dict(statuses), took_s, memory, len(said), faults)


def _client(url: str, key: str | None) -> httpx.Client:
    """Who asks good things, each on a connection of its own."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers={**headers, "Connection": "close"})


def _growth(before_mb: float, after_mb: float) -> list[str]:
    return [f"memory grew by {after_mb - before_mb:.0f} MB"] if after_mb - before_mb > GROWTH_MB else []


def _tracebacks(said: str) -> list[str]:
    if "Traceback" not in said:
        return []
    found = re.findall(r"Traceback \(most recent call last\):\n(?:[ |].*\n|\n)*\S.*", said)
    return [f"the log has {said.count('Traceback')} tracebacks, such as:\n{found[0][-1500:]}"]


@contextmanager
def _served(command: Sequence[str], log: IO[bytes], key: str | None) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, "HIAR_DATA": "memory"}  # nothing is left in the user's folder
    with (
        tempfile.NamedTemporaryFile("w") as keys,
        subprocess.Popen([*command, *_keyed(keys, key)], stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _keyed(keys: IO[str], key: str | None) -> list[str]:
    """The flags of a server that knows this key."""
    if key is None:
        return []
    keys.write(f"fuzz:{hashlib.sha256(key.encode()).hexdigest()}:\n")
    keys.flush()
    return ["--keys", keys.name]


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "replace")


def _address(log: IO[bytes], process: "subprocess.Popen[bytes]") -> str:
    for _ in _while_starting(process):
        found = re.search(r"listening on (http://\S+)", _said(log))
        if found is not None:
            return found[1]
    raise TimeoutError("the server does not listen")


def _await_ready(good: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    for _ in _while_starting(process):
        with suppress(httpx.TransportError):
            if good.get("/readyz").status_code == 200:
                return
    raise TimeoutError("the server is not ready")


def _while_starting(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise ChildProcessError(f"the server ended with {process.returncode}")
        yield
        time.sleep(0.05)


def _create(good: httpx.Client, seconds: float) -> str:
    answer = good.post("/v1/videos", json={"prompt": "x", "seconds": seconds, "pace": "realtime"})
    return str(answer.raise_for_status().json()["id"])


def _send_all(good: httpx.Client, requests: Sequence[bytes], num_connections: int, ids: Sequence[str]) -> Counter[str]:
    assert good.base_url.port is not None, "it is no port of the web's own"
    address = good.base_url.host, good.base_url.port
    done = threading.Event()
    with ThreadPoolExecutor(num_connections + 1) as threads:
        sweeping = threads.submit(_sweep, good, done, ids)
        try:
            return Counter(threads.map(lambda raw: _status(address, raw), requests))
        finally:
            done.set()
            sweeping.result()


def _sweep(good: httpx.Client, done: threading.Event, ids: Sequence[str]) -> None:
    """End the videos that the cases made, so that later ones find a place; not those of ``ids``."""
    while not done.wait(1):
        with suppress(httpx.HTTPError):
            for video in _videos(good):
                if video["status"] in {"queued", "in_progress"} and video["id"] not in ids:
                    good.post(f"/v1/videos/{video['id']}/cancel")


def _videos(good: httpx.Client) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = {} if page["last_id"] is None else {"after": page["last_id"]}
        page = good.get("/v1/videos", params={"limit": 100, **after}).raise_for_status().json()
        yield from page["data"]


def _status(address: tuple[str, int], raw: bytes) -> str:
    """Send one request; its answer's status, or what else became of it."""
    try:
        with socket.create_connection(address, timeout=_ANSWER_S) as connection:
            with suppress(OSError):
                connection.sendall(raw)
            if len(raw) % 4 == 0:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(_READ_BYTES)
    except (TimeoutError, ConnectionResetError):
        return _NO_ANSWER
    found = re.match(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+\r\n", answer)
    return _NO_ANSWER if answer == b"" else _NO_HTTP if found is None else found[1].decode("ascii")


def _faults(statuses: Counter[str]) -> list[str]:
    wrong = [name for name in statuses if name.isdecimal() and int(name) >= 500 and int(name) not in DOCUMENTED]
    return [f"{statuses[name]} answers were {name}" for name in (*wrong, _NO_HTTP) if statuses[name]]


def _health(good: httpx.Client, process: "subprocess.Popen[bytes]") -> list[str]:
    """Whether it still makes videos."""
    if process.poll() is not None:
        return [f"the server ended with {process.returncode}"]
    try:
        for video in list(_videos(good)):
            good.delete(f"/v1/videos/{video['id']}")
        answer = good.post("/v1/generate", json={"prompt": "x", "seconds": 1}, timeout=60)
    except httpx.HTTPError as error:
        return [f"the server does not answer {error.request.method} {error.request.url.path}: {error}"]
    return [] if answer.status_code == 200 else [f"a good request got {answer.status_code}: {json.dumps(answer.text)}"]


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None, "Linux tells it"
    return int(found[1]) / 1024
