"""A folder of the published shapes starts on a CPU, tells how far it is, makes a block, and holds what was planned."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.true_shapes.folder import make_folder
from engine.machine import free_host_bytes
from tests.server.scrape import scrape

ROOT = Path(__file__).parents[2]
NEEDED_BYTES = 18 * 10**9
LIMIT_S = 360.0
REFUSAL_LIMIT_S = 30.0
"""More than a refusal may take on a busy machine; it takes below two seconds on two free cores."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "hiar"
    make_folder(folder, say=lambda _: None)
    return folder


def command(model: Path, *flags: str) -> list[str]:
    program = "from server.main import main; main()"
    return [sys.executable, "-c", program, "--model", str(model), "--port", "0", *flags]


@dataclass
class Started:
    """A server on its way, and what was seen of it."""

    process: "subprocess.Popen[str]"
    log: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """By ``/readyz``, each sentence once."""
    anonymous_bytes: int = 0
    """The most that all its processes held at once beside what is mapped from files."""

    @property
    def url(self) -> str | None:
        found = [line.split()[-1] for line in list(self.log) if "listening on" in line]
        return found[0] if found else None

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    def look(self) -> bool:
        """Look at memory and health; returns whether it is ready."""
        assert self.process.poll() is None, "\n".join(self.log)
        self.anonymous_bytes = max(self.anonymous_bytes, anonymous_bytes(self.process.pid))
        if self.url is None:
            return False
        answer = httpx.get(f"{self.url}/readyz", timeout=LIMIT_S)
        if answer.status_code == 200:
            return True
        sentence = answer.json()["error"]["message"]
        if sentence not in self.told[-1:]:
            self.told.append(sentence)
        return False


def anonymous_bytes(pid: int) -> int:
    process, found = psutil.Process(pid), 0
    for one in (process, *process.children(recursive=True)):
        try:
            status = Path(f"/proc/{one.pid}/status").read_text()
        except FileNotFoundError:
            continue
        found += sum(int(kib) * 1024 for kib in re.findall(r"^RssAnon:\s+(\d+)", status, re.MULTILINE))
    return found


@pytest.fixture(scope="module")
def started(model: Path) -> Iterator[Started]:
    if free_host_bytes() < NEEDED_BYTES:
        pytest.skip(f"{NEEDED_BYTES / 1e9:.0f} GB of free memory are needed")
    flags = ["--sizes", "64x64", "--devices", "cpu", "--dtype", "bfloat16", "--max-videos", "1"]
    with subprocess.Popen(command(model, *flags), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        server = Started(process)
        threading.Thread(target=server.read, daemon=True).start()
        try:
            end_s = time.monotonic() + LIMIT_S
            while not server.look():
                assert time.monotonic() < end_s, "\n".join(server.log)
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait()


def test_a_real_folder_is_refused_at_once_where_it_does_not_fit(model: Path) -> None:
    began_s = time.monotonic()
    answer = subprocess.run(
        command(model), cwd=ROOT, capture_output=True, text=True, timeout=REFUSAL_LIMIT_S, check=False
    )
    assert answer.returncode == 1
    last = answer.stderr.strip().rpartition("\n")[2]
    assert "does not fit" in last and "these flags make it fit: " in last, answer.stderr
    assert "pages 96.6" in last and time.monotonic() - began_s < REFUSAL_LIMIT_S


@pytest.mark.long
def test_it_tells_how_far_the_start_is(started: Started) -> None:
    told = "\n".join(started.told)
    assert re.search(r"worker 0: reading hiar\.pt \d\.\d of 5\.7 GB", told), told
    assert "reading models_t5_umt5-xxl-enc-bf16.pth" in told or "of 11.4 GB" in "\n".join(started.log)
    assert re.search(r"worker 0: warming \d of 2 blocks", told)


@pytest.mark.long
def test_it_makes_a_block_and_holds_what_was_planned(started: Started) -> None:
    assert started.url is not None
    question = {"prompt": "a red fox", "seconds": 0.5}
    answer = httpx.post(f"{started.url}/v1/generate", json=question, timeout=LIMIT_S)
    assert answer.status_code == 200 and b"moof" in answer.content
    started.look()
    metrics = scrape(started.url)

    def held(source: str, *items: str) -> float:
        return sum(metrics.value("hiar_worker_memory_bytes", rank="0", item=item, source=source) for item in items)

    for item in ("weights", "text_encoder", "pages", "decoder"):
        assert held("measured", item) == pytest.approx(held("planned", item), rel=0.01)
    # The text encoder has the type of its file and stays mapped from it.
    kept = held("planned", "weights", "pages", "decoder", "context")
    most = started.anonymous_bytes
    sys.stdout.write(f"\nanonymous at most {most / 1e9:.2f} GB, of which {kept / 1e9:.2f} GB are kept\n")
    assert most < 1.3 * kept


@pytest.mark.long
def test_what_it_holds_is_logged_beside_what_was_planned(started: Started) -> None:
    (line,) = [line for line in started.log if "before its first block" in line]
    assert "weights 2.84 (2.84)" in line and "text encoder 11.36 (11.36)" in line
