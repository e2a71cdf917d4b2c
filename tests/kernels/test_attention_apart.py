"""A way to compute attention that stands still, dies or fails does so in a process of its own, and is left out."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.attention.apart import PACKAGES, outcome_of, refusal_apart, trial_program
from kernels.attention.choice import Candidate, choose_attention, seconds_by_clock
from kernels.attention.formula import paged_attention_reference

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("program", "refusal"),
    [
        ("pass", None),
        ("print('relative error 1')", "relative error 1"),
        ("while True: pass", "stood still for 0.3 s in a process of its own"),
        ("import os; os.abort()", "its own process was ended by SIGABRT"),
        ("raise ValueError('of no use')", "its own process failed: ValueError: of no use"),
    ],
)
def test_what_becomes_of_a_program(program: str, refusal: str | None) -> None:
    limit_s = 0.3 if "while" in program else 60
    assert outcome_of([sys.executable, "-c", program], limit_s) == refusal


@pytest.mark.slow
def test_a_way_that_is_right_passes_apart() -> None:
    assert refusal_apart("torch-sdpa", CPU, torch.float32, (19, 2, 16), 2, 3) is None


@pytest.mark.slow
def test_a_process_that_is_late_ends_itself(tmp_path: Path) -> None:
    """Nobody is left to end it, and what stands still is the first that it imports."""
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    program = trial_program("torch-sdpa", "cpu", "float32", 19, 2, 16, 2, 3, 1)
    ended = subprocess.run(program, cwd=PACKAGES, env={"PYTHONPATH": str(tmp_path)}, check=False)
    assert ended.returncode == -signal.SIGALRM


@pytest.mark.slow
def test_one_that_fails_apart_is_not_run_here() -> None:
    def attend(*arguments: object) -> torch.Tensor:
        raise AssertionError("it was run")

    candidates = [Candidate("nobody", attend, apart_first=True), Candidate("torch-sdpa", paged_attention_reference)]
    choice = choose_attention(CPU, torch.float32, 19, 2, 16, 3, timed=seconds_by_clock, candidates=candidates)
    assert choice.name == "torch-sdpa" and choice.trials[0].seconds is None
    assert str(choice.trials[0]).startswith("nobody left out: its own process failed: ValueError")
