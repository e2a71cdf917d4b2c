"""A real ``hiar-server`` in processes of its own that keeps its videos in a folder, and its violent end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.server.test_main import ENVIRONMENT, ROOT

ONE_PASS_A_FORWARD = """
from dataclasses import replace
from server import main
config_of = main.engine_config
main.engine_config = lambda settings: replace(config_of(settings), max_segments=1)
main.main()
"""
"""Which passes share a forward depends on when tickets come, and numbers are rounded otherwise where others do."""
REAL = ("-c", ONE_PASS_A_FORWARD, "--devices", "cpu", "--model", str(ROOT / "models" / "tiny"))
INSTANT = ("-m", "tests.server.serve_instant")


class DurableServer:
    """One process tree."""

    def __init__(
        self, arguments: Sequence[object], environment: Mapping[str, str] = ENVIRONMENT, port: int = 0
    ) -> None:
        command = [sys.executable, *map(str, arguments), "--port", str(port)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.url = self._address()
        self.said: list[str] = []
        """What it said since."""
        self.listening = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()))
        self.listening.start()
        self.http = httpx.Client(base_url=self.url, timeout=60, follow_redirects=True, trust_env=False)

    def _address(self) -> str:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"listening on (http://\S+)", line):
                return found[1]
        raise AssertionError("".join(said))

    def wait_ready(self, within_s: float = 90.0) -> None:
        self.until(lambda: self.http.get("/readyz").status_code == 200, within_s)

    def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, "it did not come true"
            time.sleep(0.02)

    def create(self, **fields: Any) -> str:
        answer = self.http.post("/v1/videos", json={"prompt": "a red ball", **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def video(self, video_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/videos/{video_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_ended(self, video_id: str) -> dict[str, Any]:
        self.until(lambda: self.video(video_id)["status"] not in {"queued", "in_progress"})
        return self.video(video_id)

    def content(self, video_id: str) -> bytes:
        answer = self.http.get(f"/v1/videos/{video_id}/content")
        assert answer.status_code == 200, answer.text
        return answer.content

    def make(self, jobs: Iterable[Mapping[str, Any]]) -> list[bytes]:
        """The bytes of such videos, which nothing disturbs."""
        ids = [self.create(**job) for job in jobs]
        for video in map(self.wait_ended, ids):
            assert (video["status"], video["recoveries"]) == ("completed", []), video
        return [self.content(video_id) for video_id in ids]

    def kill(self) -> None:
        """All of its processes at once, as no process can help against."""
        tree = psutil.Process(self.process.pid)
        for one in [tree, *tree.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._gone()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self._gone()
        return status

    def _gone(self) -> None:
        self.http.close()
        self.process.wait()
        self.listening.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def durable(*arguments: object, environment: Mapping[str, str] = ENVIRONMENT, port: int = 0) -> Iterator[DurableServer]:
    """A server for a while; ended by force if the test has not ended it."""
    server = DurableServer(arguments, environment, port)
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.kill()


def leftovers(folder: Path) -> list[str]:
    """Files of videos."""
    return sorted(os.listdir(folder / "videos"))
