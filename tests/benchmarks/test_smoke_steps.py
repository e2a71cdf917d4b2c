"""Each step of the first minutes on a GPU: what it says and leaves when something is wrong."""

import faulthandler
import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.record import Table
from benchmarks.gpu.smoke import memory, model, oracle, run, socket
from benchmarks.gpu.smoke.__main__ import main
from benchmarks.gpu.smoke.apart import missing
from benchmarks.gpu.smoke.check import Check, Clock, attempt, not_run
from benchmarks.gpu.smoke.report import SmokeReport
from benchmarks.gpu.smoke.run import MINUTES, NEEDS_S, Smoke, clock_of
from benchmarks.gpu.smoke.serving import Serving
from benchmarks.true_shapes.folder import make_folder
from engine import Manifest, StartError, read_manifest
from engine.model.weights import load_transformer
from engine.request import WorkerMemoryFacts

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu.smoke"]
CPU = torch.device("cpu")
DRY = ["--device", "cpu", "--size", "micro"]
WEB_PACKAGES = ("fastapi", "starlette", "uvicorn", "h11", "pydantic", "httpx", "prometheus_client", "pynvml")
ABSENT = (*WEB_PACKAGES, "av", "transformers", "tokenizers", "ftfy", "rich", "huggingface_hub")
NUM_FRAMES, NUM_BLOCKS = 160, 14
"""Of 10 seconds: the first block has 9 frames, the others 12."""
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (None, 1), (False, 1)])
def test_the_exit_status_is_that_of_the_checks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    passed: bool | None,
    status: int,
) -> None:
    monkeypatch.setattr(run.Smoke, "_steps", lambda _: iter([Check(name="machine", result="seen", passed=passed)]))
    for module, name in ((faulthandler, "dump_traceback_later"), (signal, "signal"), (logging, "basicConfig")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["smoke", *DRY, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status and (tmp_path / "smoke.md").exists()
    assert capsys.readouterr().out.startswith("machine: seen [")


@pytest.mark.parametrize(
    ("flag", "value"), [("--device", "gpu"), ("--device", "cpu,cuda:0"), ("--minutes", "0"), ("--minutes", "nan")]
)
def test_what_cannot_be_is_refused_at_once(
    flag: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke", flag, value])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert value in capsys.readouterr().err


def here(function: Callable[..., Any], *arguments: Any, limit_s: float) -> Any:
    return function(*arguments)


@pytest.fixture
def smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smoke:
    """A run whose steps compute in this process, and measure nothing."""
    monkeypatch.setattr(run, "apart", here)
    for name in ("passes", "decoders"):
        timed = Check(name=name, result="fast", passed=True)
        monkeypatch.setattr(run, f"time_{name}", lambda *_, timed=timed: timed)
    monkeypatch.setattr(run, "over_a_socket", lambda *_: Check(name="socket", result="fast", passed=True))
    return Smoke(devices=("cpu",), size="micro", model=None, clock=clock_of(MINUTES), scratch=tmp_path)


def verdicts(checks: Iterator[Check]) -> dict[str, bool | None]:
    return {check.name: check.passed for check in checks}


def test_a_step_that_raises_fails_and_the_others_run(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Check:
        raise RuntimeError("CUDA error: an illegal memory access\nand more lines")

    monkeypatch.setattr(run, "time_passes", broken)
    monkeypatch.setattr(Smoke, "_serve", lambda _: iter([Check(name="start", result="served", passed=True)]))
    checks = {check.name: check for check in smoke.run()}
    assert checks["passes"].passed is False
    assert checks["passes"].result == "RuntimeError: CUDA error: an illegal memory access"
    assert checks["oracle"].result == "not run: there are no latents to compare"
    assert all(checks[name].passed for name in ("machine", "model", "start", "decoders", "socket"))


def test_without_its_devices_nothing_runs(smoke: Smoke) -> None:
    smoke.devices = ("cpu", "cuda:63")
    checks = list(smoke.run())
    assert [check.name for check in checks] == list(NEEDS_S) and checks[0].passed is False
    assert checks[0].result.startswith("ValueError: device cuda:63 is not there: torch finds ")
    assert {check.result for check in checks[1:]} == {"not run: the devices could not be opened"}


def test_without_an_engine_the_rest_runs(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: Serving) -> Check:
        raise StartError("it does not fit")

    monkeypatch.setattr(Serving, "start", refuse)
    found = verdicts(smoke.run())
    assert list(found) == list(NEEDS_S) and found["start"] is False
    not_run = [name for name, passed in found.items() if passed is None]
    assert not_run == ["video of latents", "video of fragments", "memory", "recovery", "oracle"]


def test_without_a_model_only_speed_is_measured(smoke: Smoke, tmp_path: Path) -> None:
    smoke.model = tmp_path / "none"
    found = verdicts(smoke.run())
    assert list(found) == list(NEEDS_S) and found["model"] is False
    assert [name for name, passed in found.items() if passed] == ["machine", "passes", "decoders"]


def test_a_server_is_not_started_without_the_time_its_engine_took(smoke: Smoke) -> None:
    smoke.ready_s = 90
    assert smoke._use_socket(80).result == (
        "not run: 80 s are left, and the engine alone took 90 s to start; --minutes gives more"
    )


def test_time_is_kept_for_the_steps_to_come() -> None:
    now = 0.0
    clock = Clock(100, {"first": 20, "second": 30, "third": 10}, now=lambda: now)
    assert clock.limit_s("first") == 60, "all but what the others need"
    now = 60
    assert clock.limit_s("second") == 30, "what it needs, when it goes on"
    now = 80
    assert (clock.limit_s("second"), clock.limit_s("third")) == (20, 20), "the rest, if it may be enough"
    now = 96
    assert (clock.limit_s("second"), clock.limit_s("third")) == (0, 0)
    assert clock.took_s == 96
    assert sum(NEEDS_S.values()) <= 60 * MINUTES


def test_a_step_without_time_is_not_begun() -> None:
    def step(limit_s: float) -> Check:
        raise AssertionError("it was begun")

    assert attempt("oracle", 0.0, step) == not_run("oracle", "no time left")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert missing(("torch", "no_such_package", "json")) == ["no_such_package"]
    monkeypatch.setattr(socket, "missing", lambda names: [name for name in names if name in {"uvicorn", "av"}])
    make_folder(tmp_path / "model", size="micro", say=lambda line: None)
    check = socket.over_a_socket(tmp_path, ("cpu",), read_manifest(tmp_path / "model"), 1.0)
    assert check == not_run("socket", "for want of uvicorn, av; the rate at a socket is unmeasured")


SILENT_SERVER = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
print(f"listening on http://127.0.0.1:{port}\\nready after 0.1 s", file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import sys; sys.exit('cannot start: no room')", "the server ended; it said: cannot start: no room"),
        ("import time; time.sleep(60)", "the server was not ready in time; it said: "),
        (SILENT_SERVER, "the video was not over in time"),
    ],
    ids=["ended", "never ready", "never answers"],
)
def test_a_server_that_is_no_use_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    monkeypatch.setattr(socket, "PROGRAM", program)
    make_folder(tmp_path / "model", size="micro", say=lambda line: None)
    manifest = read_manifest(tmp_path / "model")
    check = attempt("socket", 4.0, lambda limit_s: socket.over_a_socket(tmp_path, ("cpu",), manifest, limit_s))
    assert check.passed is False and check.result.partition(": ")[2] == sentence.strip()
    assert check.took_s < 15


def test_a_report_passes_only_if_something_ran_and_nothing_failed(tmp_path: Path) -> None:
    good, bad = Check(name="a|b", result="x | y", passed=True), Check(name="bad", result="z", passed=False)
    table = Table("T", ("what", "value"), (("p|q", 0.123456), ("n", 12345.6)))
    noted = Check(name="noted", result="r", passed=True, tables=(table,), notes=("beware",), took_s=2.0)

    def report(*checks: Check) -> SmokeReport:
        return SmokeReport(
            command="c", devices=("cuda:0",), machine=[], model="m", size="real", took_s=1.0, checks=checks
        )

    assert [
        report(*checks).passed for checks in [(good,), (good, bad), (not_run("n", "w"),), (good, not_run("n", "w"))]
    ]
    assert report(good, not_run("late", "no time left")).passed
    assert not report(good, bad).passed and not report(not_run("late", "no time left")).passed
    report(good, bad, not_run("late", "no time left"), noted).write(tmp_path / "made")
    text = (tmp_path / "made" / "smoke.md").read_text()
    assert text.startswith("# First run on cuda:0\n")
    assert "| a\\|b | x \\| y | yes |\n| bad | z | NO |\n| late | not run: no time left | - |" in text
    assert (
        "## noted, 2 s\n\n* beware\n\n**T**\n\n| what | value |\n| --- | --- |\n| p\\|q | 0.1235 |\n| n | 12346 |"
        in text
    )
    late = json.loads((tmp_path / "made" / "smoke.json").read_text())["checks"][2]
    assert (late["ran"], late["passed"]) == (False, None)


def held(rank: int, device: str, planned: dict[str, int], measured: dict[str, int], total: int) -> WorkerMemoryFacts:
    return WorkerMemoryFacts(
        rank=rank,
        device=device,
        planned=tuple(planned.items()),
        measured=tuple(measured.items()),
        planned_bytes=sum(planned.values()),
        measured_bytes=total,
    )


def test_the_oracle_allows_rounding_and_no_other_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "model", size="micro", random=True, say=lambda line: None)
    monkeypatch.setattr(model, "missing", list)
    config = model.subject_of(tmp_path / "model", ("cpu",), 60.0, tmp_path).config
    question = oracle.Question(config=config, dtype_name="bfloat16", text_device="cpu", blocks=())
    network = load_transformer(config.manifest.transformer, config.manifest.transformer_file, CPU, torch.bfloat16)
    embedding_TX = oracle._embed(question, torch.bfloat16)

    def answered(manifest: Manifest, seed: int = question.seed) -> Check:
        with torch.inference_mode():
            latents = oracle._roll_out(network, manifest, embedding_TX, seed, 4)
        blocks = tuple(block.view(torch.uint8).numpy().tobytes() for block in latents)
        return oracle.against_oracle(replace(question, blocks=blocks))

    same = answered(config.manifest)
    assert same.passed and same.numbers["worst_error"] == 0 and same.numbers["blocks"] == 4
    assert 1e-3 < same.numbers["rounding_error"] < same.numbers["tolerance"] < same.numbers["without_context_error"]
    blind = answered(oracle._without_context(config.manifest))
    assert blind.passed is False and blind.numbers["worst_error"] >= same.numbers["without_context_error"]
    assert answered(config.manifest, seed=8).passed is False


def test_where_context_makes_no_difference_the_oracle_says_so() -> None:
    told = oracle._judged([0.01, 0.02], 0.03, 0.05, tolerance=0.09, dtype_name="bfloat16")
    assert told.passed is None and told.result.endswith("so this says nothing about the context")
    assert oracle._judged([0.01, 0.2], 0.03, 0.05, tolerance=0.09, dtype_name="bfloat16").passed is False
    assert oracle._judged([0.01, math.nan], 0.03, 0.5, tolerance=0.09, dtype_name="bfloat16").passed is False


def test_memory_has_a_total_for_each_worker() -> None:
    workers = [
        held(0, "cuda:0", {"pages": 4 * 10**9, "slack": 10**9}, {"pages": 4 * 10**9, "graphs": 2 * 10**9}, 3 * 10**9),
        held(1, "cuda:1", {"pages": 2 * 10**9}, {"pages": 2 * 10**9}, 2 * 10**9),
    ]
    rows = memory.memory_rows(workers, {"cuda:0": 6 * 10**9})
    assert [tuple(row) for row in rows] == [
        (0, "cuda:0", "pages", 4.0, 4.0),
        (0, "cuda:0", "slack", 1.0, 0.0),
        (0, "cuda:0", "graphs", 0.0, 2.0),
        (0, "cuda:0", memory.IN_ALL, 5.0, 3.0),
        (0, "cuda:0", memory.AFTER_VIDEOS, 5.0, 6.0),
        (1, "cuda:1", "pages", 2.0, 2.0),
        (1, "cuda:1", memory.IN_ALL, 2.0, 2.0),
    ]
    check = memory.check_memory(workers, {"cuda:0": 6 * 10**9})
    assert check.passed is False and check.numbers == {"planned_gb": 7.0, "measured_gb": 5.0, "used_gb": 6.0}
    assert check.result.endswith(f"; worker 0, {memory.AFTER_VIDEOS}: more than planned")
    unknown = memory.check_memory(workers, {})
    assert unknown.passed and unknown.result.endswith("; within the plan") and "nvidia-smi" in unknown.notes[0]


def test_of_a_cpu_only_what_is_counted_must_be_within_the_plan() -> None:
    fits = held(0, "cpu", {"pages": 10**9}, {"pages": 10**9}, 9 * 10**9)
    over = held(0, "cpu", {"pages": 10**9}, {"pages": 2 * 10**9}, 10**9)
    assert memory.check_memory([fits], {}).passed and memory.check_memory([fits], {}).notes == ()
    assert memory.check_memory([over], {}).result.endswith("; worker 0, pages: more than planned")
    assert memory.check_memory([], {}).passed is None


def test_what_is_in_use_is_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.used_on({"cuda:0": "GPU-a"}) == {}, "there is no such program"
    program.write_text("#!/bin/sh\necho 'GPU-b, 100'\necho 'GPU-a, 81000'\necho 'GPU-c, [N/A]'\n")
    program.chmod(0o755)
    found = memory.used_on({"cuda:0": "GPU-a", "cuda:1": "GPU-c", "cuda:2": "GPU-d"})
    assert found == {"cuda:0": 81000 * 2**20} and math.isclose(found["cuda:0"] / 1e9, 84.93, rel_tol=1e-3)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert memory.used_on({"cuda:0": "GPU-a"}) == {}
