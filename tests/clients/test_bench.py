"""``hiar bench`` against the real HTTP server on workers that need no process."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import EngineOptions
from hiar_client.bench.plan import BEHAVIOURS
from hiar_client.cli.command import run
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving


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
    assert plot.read_text().startswith("<svg ")
    assert "| first fragment" in capfd.readouterr().out
    eventually(lambda: live.engine.load.running == 0)


def test_refusals_are_counted(live: LiveServer, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = ["--requests", "40", "--rate", "400", "--seconds", "1", "--mix", "reader", "-q", "--json", str(out)]
    with live.holding(), live.holding(), live.holding(), live.holding():
        live.do(setattr, live.behaviour, "holds_prompts", True)
        threading.Timer(1.0, live.do, (_let_go, live)).start()
        assert run(["bench", "--url", live.url, *words]) in (0, 1)
    summary = json.loads(out.read_text())["summary"]
    assert summary["asked"] == 40 and set(summary["refused"]) == {"overloaded"}
    assert summary["first_fragment_s"]["n"] == 40 - summary["refused"]["overloaded"]


def _let_go(live: LiveServer) -> None:
    live.behaviour.holds_prompts = False
    live.engine.workers.answer_prompts()


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
    eventually(lambda: live.engine.load.running == 0)
