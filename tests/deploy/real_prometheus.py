"""Debian's Prometheus on a loopback port, and what is asked of it."""

import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
SCRAPE_S = 1


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; skips the test where there is none."""
    found = shutil.which(name, path=str(ROOT / ".venv" / "tools")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make install-dev fetches it on Debian")
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class QueryRefused(Exception):
    """Prometheus does not understand the expression."""


@dataclass(frozen=True)
class Series:
    labels: dict[str, str]
    values: list[float]

    @property
    def says_something(self) -> bool:
        return any(math.isfinite(value) for value in self.values)


@dataclass
class RealPrometheus:
    url: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def ask(self, path: str, **parameters: str | float) -> Any:
        answer = self.client.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise QueryRefused(answer["error"])
        return answer["data"]

    def query(self, expr: str) -> list[Series]:
        """At this moment."""
        data = self.ask("query", query=expr)
        if data["resultType"] == "scalar":
            return [Series({}, [float(data["result"][1])])]
        return [Series(item["metric"], [float(item["value"][1])]) for item in data["result"]]

    def query_range(self, expr: str, past_s: float) -> list[Series]:
        now = time.time()
        data = self.ask("query_range", query=expr, start=now - past_s, end=now, step=SCRAPE_S)
        return [Series(item["metric"], [float(value) for _, value in item["values"]]) for item in data["result"]]

    def metric_types(self) -> dict[str, str]:
        """Family -> type, of everything that was ever scraped, in use or not."""
        return {name: entries[0]["type"] for name, entries in self.ask("metadata").items()}

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def real_prometheus(folder: Path, targets: list[str], rule_files: list[Path]) -> Iterator[RealPrometheus]:
    """Scrapes ``targets`` (host:port), as one server, and works out the rules, every second."""
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": [
            {
                "job_name": "hiar-server",
                "static_configs": [{"targets": targets, "labels": {"namespace": "test", "pod": "server-0"}}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{_free_port()}"
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_ready(f"http://{address}/-/ready", process, log)
        prometheus = RealPrometheus(f"http://{address}")
        yield prometheus
        prometheus.client.close()
    finally:
        process.terminate()
        process.wait(30)
        sys.stdout.write(log.read_text())  # shown when the test fails


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready: {log.read_text()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
