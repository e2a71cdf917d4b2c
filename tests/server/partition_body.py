"""A viewer whose network is gone without a word, in two network namespaces: its place is free in time.

Runs as ``unshare -Urnm python -m tests.server.partition_body``. The viewer is in the second namespace, whose end of the
cable is pulled; nothing tells the server. Exits 1 with a traceback where that takes too long.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER, VIEWER = "10.9.0.1", "10.9.0.2"
FREED_S = 20.0
READ = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
body = b'{"prompt": "x", "pace": "realtime"}'
head = b"POST /v1/generate HTTP/1.1\\r\\nHost: 10.9.0.1\\r\\nContent-Type: application/json\\r\\n"
connection.sendall(head + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
while connection.recv(65536):
    pass
"""


def until(condition: Callable[[], bool], within_s: float) -> float:
    """Wait until it holds. Returns the seconds that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < within_s, f"not within {within_s} s"
        time.sleep(0.05)
    return time.monotonic() - began_s


@contextmanager
def second_namespace() -> Iterator[tuple[str, ...]]:
    """The words before a command that run it there; ``v0`` and ``v1`` are the ends of a cable."""
    with subprocess.Popen(["unshare", "--net", "sleep", "120"]) as holder:
        try:
            ours = os.readlink("/proc/self/ns/net")
            until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours, 5)
            inside = ("nsenter", "-t", str(holder.pid), "--net")
            for command in (
                f"ip link add v0 type veth peer name v1 netns {holder.pid}",
                f"ip addr add {SERVER}/24 dev v0",
                "ip link set v0 up",
                "ip link set lo up",
            ):
                subprocess.run(command.split(), check=True)
            for command in (f"ip addr add {VIEWER}/24 dev v1", "ip link set v1 up"):
                subprocess.run([*inside, *command.split()], check=True)
            yield inside
        finally:
            holder.kill()


@contextmanager
def server() -> Iterator[int]:
    """Its port."""
    command = [
        sys.executable,
        "-m",
        "tests.server.serve_instant",
        "0.05",
        "--host",
        SERVER,
        "--port",
        "0",
        "--insecure",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "ready after" in line)
            found = re.search(rf"http://{SERVER}:(\d+)", line)
            assert found is not None
            yield int(found[1])
        finally:
            process.kill()


def asked(port: int) -> dict[str, Any]:
    """The newest video."""
    with urllib.request.urlopen(f"http://{SERVER}:{port}/v1/videos", timeout=5) as answer:
        told: dict[str, Any] = json.load(answer)
    return told["data"][0] if told["data"] else {}


def main() -> None:
    with (
        second_namespace() as inside,
        server() as port,
        subprocess.Popen([*inside, sys.executable, "-c", READ, SERVER, str(port)]) as viewer,
    ):
        try:
            until(lambda: asked(port).get("blocks_done", 0) > 2, 10)
            subprocess.run([*inside, "ip", "link", "set", "v1", "down"], check=True)
            took_s = until(lambda: asked(port)["status"] != "in_progress", FREED_S)
            sys.stdout.write(f"freed after {took_s:.1f} s: {asked(port)['end_reason']}\n")
        finally:
            viewer.kill()


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    main()
