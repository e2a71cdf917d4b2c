"""A server process with rehearsed workers, and viewers that read painted frame numbers from it."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from hiar_client.boxes import BoxSplitter
from tests.media.painted import frame_numbers, frame_times

SIZE, FPS = "96x96", 16


@dataclass
class RehearsedServer:
    url: str
    process: psutil.Process
    log: Path

    def capabilities(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/v1/capabilities").json()
        return answer

    def load(self) -> dict[str, int]:
        answer: dict[str, int] = self.capabilities()["load"]
        return answer

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def worker_pids(self) -> list[int]:
        """Of the newest group, by rank."""
        found = re.findall(r"worker (\d+) on \S+ is process (\d+)", self.log.read_text())
        newest = {int(rank): int(pid) for rank, pid in found}
        return [newest[rank] for rank in sorted(newest)]

    def signal_worker(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.worker_pids()[rank], number)


@contextlib.contextmanager
def rehearsed_server(
    pass_s: float, *flags: str, faults: tuple[str, ...] = (), workers: int = 3
) -> Iterator[RehearsedServer]:
    """Ready to serve; killed in the end, if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "tests.server.serve_rehearsal", str(pass_s), *faults, "--", "--port", "0"]
        devices = ["--devices", ",".join(["cpu"] * workers)]
        with log.open("w") as stderr:
            process = subprocess.Popen([*command, *devices, *flags], stderr=stderr)
        try:
            eventually(lambda: "listening on" in log.read_text() or process.poll() is not None, 30)
            found = re.search(r"listening on (\S+)", log.read_text())
            assert found, log.read_text()
            server = RehearsedServer(found[1], psutil.Process(process.pid), log)
            eventually(server.is_ready, 60)
            yield server
        finally:
            process.kill()
            process.wait()
            sys.stdout.write(log.read_text())  # shown when the test fails


def eventually(condition: Callable[[], object], within_s: float) -> float:
    """Wait until it holds; returns the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"still not so after {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Viewer:
    """Reads one video in a thread: a new one, or with ``path`` one that is there."""

    server: RehearsedServer
    seed: int = 0
    seconds: float | None = None
    pace: str = "fast"
    fps: int = FPS
    linger_s: float = 0
    path: str | None = None
    data: bytearray = field(default_factory=bytearray)
    video: str | None = None
    num_blocks: int = 0
    end: dict[str, Any] | None = None
    """What the last signal in the stream says."""

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        splitter = BoxSplitter()
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(timeout=60) as client,
            self._ask(client) as answer,
        ):
            self.video = answer.headers.get("X-Video-Id")
            for chunk in answer.iter_raw():
                self.data += chunk
                for box in splitter.feed(chunk):
                    self.num_blocks += box.kind == "moof"
                    if box.kind == "uuid":
                        self.end = json.loads(box.body[16:])

    def _ask(self, client: httpx.Client) -> AbstractContextManager[httpx.Response]:
        if self.path is not None:
            return client.stream("GET", self.server.url + self.path)
        body = {
            "prompt": "x",
            "seed": self.seed,
            "size": SIZE,
            "fps": self.fps,
            "pace": self.pace,
            "linger_seconds": self.linger_s,
        }
        if self.seconds is not None:
            body["seconds"] = self.seconds
        return client.stream("POST", f"{self.server.url}/v1/generate", json=body)

    @property
    def blocks(self) -> list[bytes]:
        """Whole fragments, without the init segment and boxes of the server's own."""
        boxes = [box for box in BoxSplitter().feed(bytes(self.data)) if box.kind in ("moof", "mdat")]
        return [moof.data + mdat.data for moof, mdat in zip(boxes[::2], boxes[1::2], strict=False)]

    @property
    def init_segment(self) -> bytes:
        """What comes before the first fragment."""
        return b"".join(box.data for box in BoxSplitter().feed(bytes(self.data)) if box.kind in ("ftyp", "moov"))

    def finish(self, within_s: float = 90) -> None:
        self.thread.join(within_s)
        assert not self.thread.is_alive(), "the stream did not end"

    @property
    def numbers(self) -> list[int]:
        return frame_numbers(bytes(self.data))

    @property
    def steps_s(self) -> set[float]:
        """Distances between the pictures of the video."""
        times = frame_times(bytes(self.data))
        return {round(after - before, 6) for before, after in itertools.pairwise(times)}


def wait_for_progress(viewers: list[Viewer]) -> None:
    """Until each has got another block."""
    before = [viewer.num_blocks for viewer in viewers]
    eventually(lambda: all(v.num_blocks > had for v, had in zip(viewers, before, strict=True)), 30)
