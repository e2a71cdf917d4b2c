"""Bad clients for ``benchmarks.slow_readers``, in a process of their own so that nobody waits for them but the server.

    python -m benchmarks.crowd PORT '{"readers": 9, "half_open": 9, "path": "/v1/videos/...", "bytes_per_s": 1000}'

Readers ask for a path, or with ``body`` post it, and take a few bytes a second into a small window. The half-open send
half a header and wait. Whoever is cut off comes again, unless ``again`` is false. Says ``ready`` when every reader has
the first byte of an answer, goes on until its input closes, then tells in JSON how often each was cut off. They come
from 127.0.0.2; with ``apart`` each from an address of its own.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

WINDOW_BYTES = 4096
HALF_HEADER = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"


class Crowd:
    """All of them."""

    def __init__(self, port: int, asked: dict[str, Any]) -> None:
        self._address = ("127.0.0.1", port)
        self._again: bool = asked.get("again", True)
        self._is_apart: bool = asked.get("apart", False)
        self._bytes_per_s: int = asked["bytes_per_s"]
        self._num_readers: int = asked["readers"]
        self._num_half_open: int = asked["half_open"]
        self._request = _request(asked["path"], asked.get("body"))
        self._answered = asyncio.Semaphore(0)
        self.cuts = {"readers": 0, "half_open": 0}

    async def stay(self) -> None:
        """Until the input closes."""
        tasks = [asyncio.create_task(self._reader(number)) for number in range(self._num_readers)]
        tasks += [asyncio.create_task(self._half_open()) for _ in range(self._num_half_open)]
        if self._again:
            for _ in range(self._num_readers):
                await self._answered.acquire()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reader(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        host = f"127.0.0.{2 + (number if self._is_apart else 0)}"
        while True:
            with suppress(OSError), await self._connect(host) as connection:
                await loop.sock_sendall(connection, self._request)
                while await loop.sock_recv(connection, max(1, self._bytes_per_s // 2)):
                    self._answered.release()
                    await asyncio.sleep(0.5)
            self.cuts["readers"] += 1
            if not self._again:
                return

    async def _half_open(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(OSError), await self._connect() as connection:
                await loop.sock_sendall(connection, HALF_HEADER)
                while await loop.sock_recv(connection, 4096):
                    pass
            self.cuts["half_open"] += 1

    async def _connect(self, host: str = "127.0.0.2") -> socket.socket:
        connection = socket.socket()
        connection.bind((host, 0))
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        return connection


@contextmanager
def crowd(port: int, **asked: Any) -> Iterator[dict[str, int]]:
    """A crowd that is ready. What is yielded has, in the end, how often they were cut off."""
    command = [sys.executable, "-m", "benchmarks.crowd", str(port), json.dumps(asked)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    cuts = dict[str, int]()
    try:
        assert process.stdout.readline() == "ready\n", "the crowd did not get ready"
        yield cuts
        process.stdin.close()
        cuts.update(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _request(path: str, body: dict[str, Any] | None) -> bytes:
    content = json.dumps(body).encode() if body is not None else b""
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _main(port: int, asked: dict[str, Any]) -> None:
    members = Crowd(port, asked)
    await members.stay()
    print(json.dumps(members.cuts), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), json.loads(sys.argv[2])))
