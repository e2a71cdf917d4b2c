"""Tries a way to compute attention in a process of its own, before it runs where it will serve.

A kernel that stands still, or that spoils what the driver keeps for a process, can be stopped only with its process.
What runs in that process is ``kernels.attention.trial``. Knows no kernel.

Letters: L tokens of a segment (and of a page), H heads, K channels of a head.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

LIMIT_S = 90
"""Whole seconds for imports, for compiling and for a few runs; nothing of it was measured on a GPU."""
GRACE_S = 5
"""A process that is not ended by its own alarm gets so many seconds more."""
PACKAGES = Path(__file__).parents[2]
"""Where programs run, so that they find what they import."""


def refusal_apart(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    shape_LHK: tuple[int, int, int],
    num_segments: int,
    num_pages: int,
) -> str | None:
    """Why a candidate failed its check in a process of its own; None if it passed.

    Args:
        name: of one of ``kernels.attention.choice.candidates_on`` the device, for pages that are not in 8 bits.
        device: where it runs.
        dtype: of queries, keys, values and pages.
        shape_LHK: of a segment.
        num_segments: segments of the trial.
        num_pages: pages of a full window.
    """
    kind = str(dtype).removeprefix("torch.")
    program = trial_program(name, str(device), kind, *shape_LHK, num_segments, num_pages, LIMIT_S)
    return outcome_of(program, LIMIT_S + GRACE_S)


def trial_program(*arguments: str | int) -> list[str]:
    """The command line of ``kernels.attention.trial`` with its arguments; it runs from the root of the packages."""
    return [sys.executable, "-m", "kernels.attention.trial", *map(str, arguments)]


def outcome_of(program: Sequence[str], limit_s: float) -> str | None:
    """Run a program that writes a refusal to its standard output, or nothing; returns what is wrong, if anything is."""
    try:
        ended = subprocess.run(program, cwd=PACKAGES, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"stood still for {limit_s:g} s in a process of its own"
    if ended.returncode < 0:
        return f"its own process was ended by {signal.Signals(-ended.returncode).name}"
    if ended.returncode:
        last_line = ended.stderr.strip().rpartition("\n")[2]
        return f"its own process failed: {last_line}"
    return ended.stdout.strip() or None
