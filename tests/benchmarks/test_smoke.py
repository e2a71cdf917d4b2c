"""The first minutes on a GPU, rehearsed on a CPU: the real command once, and what it does when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu.smoke import memory
from benchmarks.gpu.smoke.check import Check
from benchmarks.gpu.smoke.run import MINUTES, NEEDS_S, Smoke, clock_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu.smoke"]
CPU = torch.device("cpu")
DRY = ["--device", "cpu", "--size", "micro"]
WEB_PACKAGES = ("fastapi", "starlette", "uvicorn", "h11", "pydantic", "httpx", "prometheus_client", "pynvml")
ABSENT = (*WEB_PACKAGES, "av", "transformers", "tokenizers", "ftfy", "rich", "huggingface_hub")
NUM_FRAMES, NUM_BLOCKS = 160, 14
"""Of 10 seconds: the first block has 9 frames, the others 12."""
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class DryRun:
    """What the command left."""

    folder: Path
    answer: "subprocess.CompletedProcess[str]"

    @property
    def markdown(self) -> str:
        return (self.folder / "smoke.md").read_text()

    @property
    def json(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "smoke.json").read_text())
        return report

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {check["name"]: check for check in self.json["checks"]}

    def numbers(self, name: str) -> dict[str, float]:
        numbers: dict[str, float] = self.checks[name]["numbers"]
        return numbers


def dry_run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> DryRun:
    command = [*COMMAND, *arguments, "--out", str(folder)]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return DryRun(folder, answer)


@dataclass(frozen=True)
class Bare:
    """A GPU machine that has torch, triton, numpy and safetensors only, as far as packages go."""

    environment: dict[str, str]
    """Of all processes of a run."""
    temporary: Path

    @property
    def left(self) -> list[str]:
        """Names of our own temporary folders that are still there."""
        return [path.name for path in self.temporary.iterdir() if path.name.startswith("hiar")]


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    folder = tmp_path_factory.mktemp("b")  # a short name: the sockets of processes lie in it
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    temporary = folder / "t"
    temporary.mkdir()
    return Bare({**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(temporary)}, temporary)


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    return dry_run(tmp_path_factory.mktemp("dry"), *DRY)


@pytest.mark.timeout(400)
def test_every_check_runs_and_passes_on_a_cpu(dry: DryRun) -> None:
    assert dry.answer.returncode == 0, dry.answer.stdout + dry.answer.stderr
    assert list(dry.checks) == list(NEEDS_S)
    assert {name: check["result"] for name, check in dry.checks.items() if not check["passed"]} == {}
    assert dry.json["passed"] is True and dry.json["dry_run"] is True
    assert sum(check["took_s"] for check in dry.checks.values()) <= dry.json["took_s"] < 60 * MINUTES


@pytest.mark.parametrize("name", ["video of latents", "video of fragments", "socket"])
def test_a_video_has_all_its_frames(dry: DryRun, name: str) -> None:
    video = dry.numbers(name)
    assert (video["frames"], video["blocks"]) == (NUM_FRAMES, NUM_BLOCKS)
    assert 0 < video["first_block_s"] < video["video_s"] < dry.checks[name]["took_s"]
    rate = (NUM_FRAMES - 9) / (video["video_s"] - video["first_block_s"])
    assert video["frames_per_s"] == pytest.approx(rate)


def test_latents_are_compared_with_the_oracle_and_across_a_loss(dry: DryRun) -> None:
    compared, recovery = dry.numbers("oracle"), dry.numbers("recovery")
    assert compared["blocks"] == 9 and 0 <= compared["worst_error"] <= compared["tolerance"] == 1e-4
    assert compared["without_context_error"] > 100 * compared["tolerance"], "the check could not tell a wrong context"
    (table,) = dry.checks["oracle"]["tables"]
    assert [row["block"] for row in table["rows"]] == list(range(9))
    assert recovery["error"] <= 1e-4
    assert NUM_BLOCKS // 2 <= recovery["blocks_before"] < NUM_BLOCKS <= recovery["blocks"]
    assert 0 < recovery["seen_s"] < recovery["serving_s"] < recovery["first_new_block_s"]


def test_times_and_memory_are_plausible(dry: DryRun) -> None:
    start, passes, decoders = dry.numbers("start"), dry.numbers("passes"), dry.numbers("decoders")
    parts_s = start["measure_s"] + start["load_s"] + start["warm_up_s"]
    assert 0 < parts_s <= start["ready_s"] and start["predicted_frames_per_s"] > 0
    assert {"denoise_ms", "cache_ms", "baseline_denoise_ms", "baseline_cache_ms", "C+D_ms"} < passes.keys()
    assert list(decoders) == ["Wan VAE_ms", "tiny decoder_ms"]
    assert all(0 < took_ms < 60_000 for took_ms in [*passes.values(), *decoders.values()])
    (table,) = dry.checks["memory"]["tables"]
    held = {row["item"]: (row["planned GB"], row["measured GB"]) for row in table["rows"]}
    assert held["pages"][0] == held["pages"][1] > 0 and held["weights"][0] == pytest.approx(held["weights"][1])
    assert min(held[memory.IN_ALL]) > 0 and memory.AFTER_VIDEOS not in held


def test_the_report_names_what_ran(dry: DryRun) -> None:
    command = f"python -m benchmarks.gpu.smoke {' '.join(DRY)} --out {dry.folder}"
    (facts,) = dry.json["machine"]
    assert dry.json["command"] == command and dry.json["devices"] == ["cpu"]
    assert facts["device"] == "CPU" and {"python", "torch", "triton"} < facts.keys()
    lines = dry.markdown.splitlines()
    assert lines[0].startswith("# First run on CPU (dry run") and lines[2] == f"    {command}"
    assert all(f"{what} {version}" in lines[4] for what, version in facts.items())
    for name, check in dry.checks.items():
        result = check["result"].replace("|", "\\|")
        assert f"| {name} | {result} | yes |" in lines


def test_no_path_of_the_machine_is_told(dry: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (dry.markdown, (dry.folder / "smoke.json").read_text()):
        told = text.replace(dry.json["command"], "")
        assert [path for path in (str(ROOT), str(dry.folder), "hiar-smoke-", sys.prefix) if path in told] == []
    smoke = Smoke(devices=("cpu",), size="micro", model=None, clock=clock_of(1), scratch=Path("/scratch/x"))
    wrong = Check(name="model", result=f"/scratch/x/model/hiar.pt, {ROOT}/engine", passed=False, notes=(str(ROOT),))
    monkeypatch.setattr(Smoke, "_steps", lambda _: iter([wrong]))
    (check,) = smoke.run()
    assert (check.result, check.notes) == ("(temporary folder)/model/hiar.pt, ./engine", (".",))


@pytest.mark.timeout(200)
def test_a_machine_without_web_packages_runs_the_rest_and_says_so(tmp_path: Path, bare: Bare) -> None:
    ran = dry_run(tmp_path, *DRY, environment=bare.environment)
    assert ran.answer.returncode == 0, ran.answer.stdout + ran.answer.stderr
    left_out = {name: check["result"] for name, check in ran.checks.items() if not check["ran"]}
    assert list(left_out) == ["video of fragments", "socket"]
    assert "the decoder and the encoder, for want of av" in left_out["video of fragments"]
    assert "the text encoder, for want of transformers, tokenizers, ftfy" in left_out["video of fragments"]
    assert "for want of fastapi, starlette, uvicorn" in left_out["socket"]
    assert all(check["passed"] for check in ran.checks.values() if check["ran"])
    assert ran.numbers("oracle")["blocks"] == 9 and ran.numbers("recovery")["error"] <= 1e-4
    assert bare.left == []


def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path, bare: Bare) -> None:
    with subprocess.Popen(
        [*COMMAND, *DRY, "--out", str(tmp_path)],
        cwd=ROOT,
        env=bare.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("recovery: ") and line.endswith(" s at most\n"):
                break
        others = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.stdout.read()
    assert len(others) >= 3, "one that makes processes, one that counts what they share, and a worker"
    assert process.returncode == 128 + signal.SIGTERM
    assert all(ends(other) for other in others) and bare.left == []
    done = [check["name"] for check in json.loads((tmp_path / "smoke.json").read_text())["checks"]]
    assert done == list(NEEDS_S)[: list(NEEDS_S).index("recovery")]


APART = """
import os, time
from benchmarks.gpu.smoke.apart import ApartError, apart
print(apart(os.getppid, limit_s=60) != os.getppid())
for function, argument, limit_s in ((int, "x", 60), (os._exit, 3, 60), (time.sleep, 60, 1.0)):
    try:
        apart(function, argument, limit_s=limit_s)
    except (ApartError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
print("the last one", flush=True)
apart(time.sleep, 300, limit_s=300)
"""


def test_what_runs_apart_is_told_killed_and_never_left(bare: Bare) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APART], cwd=ROOT, env=bare.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        began_s = time.monotonic()
        lines = [process.stdout.readline().strip() for _ in range(5)]
        assert time.monotonic() - began_s < 40
        assert lines == [
            "True",
            "ApartError: ValueError: invalid literal for int() with base 10: 'x'",
            "ApartError: its process ended with exit code 3",
            "TimeoutError: it was not done after 1 s",
            "the last one",
        ]
        children: list[psutil.Process] = []
        while process.poll() is None and len(children) < 3:
            time.sleep(0.1)
            children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3, "one that makes processes, one that counts what they share, and the last one"
        process.kill()
    assert all(ends(child) for child in children)


def ends(process: psutil.Process) -> bool:
    """Whether it has ended within some seconds; whoever should bury it may be slow."""
    try:
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return True
    return False
