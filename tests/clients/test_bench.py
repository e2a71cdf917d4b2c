"""``hiar bench`` against the real HTTP server on workers that need no process."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine import EngineOptions
from hiar_client.bench.plan import BEHAVIOURS
from hiar_client.cli.command import run
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    options = EngineOptions(max_videos=4, max_queue=8)
    with serving(Behaviour(block_s=0.01), engine=options, max_per_client=100) as server:
        yield server


@pytest.mark.parametrize("arriving", [("--concurrency", "5"), ("--rate", "20")])
def test_every_behaviour_is_seen_to_its_end(
    live: LiveServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], arriving: tuple[str, str]
) -> None:
    out, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ["--requests", "12", "--seconds", "1.5", "--mix", ",".join(BEHAVIOURS), "--seed", "5"]
    files = ["--json", str(out), "--plot", str(plot)]
    assert run(["bench", "--url", live.url, *arriving, *words, *files]) == 0
    told = json.loads(out.read_text())
    viewers, summary = told["viewers"], told["summary"]
    assert {viewer["behaviour"] for viewer in viewers} == set(BEHAVIOURS)
    assert {viewer["end"] for viewer in viewers if viewer["behaviour"] == "leaver"} == {"left"}
    assert {viewer["end"] for viewer in viewers if viewer["behaviour"] != "leaver"} == {"completed"}
    whole = [viewer for viewer in viewers if viewer["end"] == "completed"]
    assert all(sum(length_s for _, length_s in viewer["arrivals"]) == pytest.approx(1.5) for viewer in whole)
    assert summary["resume_s"]["n"] == sum(viewer["behaviour"] == "resumer" for viewer in viewers)
    assert summary["refused"] == summary["failed"] == {}
    assert summary["first_fragment_s"]["n"] == 12 and summary["video_s"] > 10
    assert summary["late_s"]["n"] == (12 if "--rate" in arriving else 0)
    assert plot.read_text().startswith("<svg ")
    assert "| first fragment" in capfd.readouterr().out
    eventually(lambda: live.engine.load.running == 0, within_s=30)


def test_refusals_are_counted(live: LiveServer, tmp_path: Path) -> None:
    """Nobody is let in until all have come, and they are more than the server takes."""
    out, before = tmp_path / "bench.json", len(live.engine.opened)
    live.behaviour.holds_prompts = True

    def let_in() -> None:
        eventually(lambda: len(live.engine.opened) - before + num_refused(live) == 40, within_s=30)
        live.behaviour.holds_prompts = False
        live.do(live.engine.workers.answer_prompts)

    letting = threading.Thread(target=let_in)
    letting.start()
    words = ["--requests", "40", "--rate", "400", "--seconds", "1", "--mix", "reader", "-q", "--json", str(out)]
    assert run(["bench", "--url", live.url, *words]) == 0
    letting.join()
    summary = json.loads(out.read_text())["summary"]
    num_taken = len(live.engine.opened) - before
    assert 0 < num_taken < 40 and (summary["asked"], summary["completed"]) == (40, num_taken)
    assert summary["refused"] == {"overloaded": 40 - num_taken} and summary["first_fragment_s"]["n"] == num_taken


def num_refused(live: LiveServer) -> int:
    told = httpx.get(f"{live.url}/metrics").text
    return sum(int(float(count)) for count in re.findall(r"hiar_requests_rejected_total\{.*\} (\S+)", told))


def test_a_signal_ends_it_with_what_was_measured(
    live: LiveServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "bench.json", len(live.engine.opened)

    def interrupt() -> None:
        eventually(lambda: len(live.engine.opened) > before + 4, within_s=30)
        os.kill(os.getpid(), signal.SIGINT)

    stopping = threading.Thread(target=interrupt)
    stopping.start()
    words = ["--concurrency", "3", "--duration", "600", "--seconds", "1", "--mix", "reader", "--json", str(out)]
    assert run(["bench", "--url", live.url, *words]) == 130
    stopping.join()
    assert json.loads(out.read_text())["summary"]["completed"] >= 1
    assert "| first fragment" in capfd.readouterr().out
    eventually(lambda: live.engine.load.running == 0, within_s=30)
