"""One training run in its folder: resume, log, checkpoints, curves, moving averages, optimizers and their rates.

A run is a pure function of its seed and its settings: what a step draws comes from ``(seed, step)`` alone, so a run
that was stopped and resumed ends with the same weights as one that never stopped. A folder holds ``checkpoint.pt``,
``log.jsonl`` (a line a start, and one every few steps) and ``curves.png``. Knows no network and no loss.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from training.muon import Muon

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"
CHECKPOINT_EVERY_S = 180.0


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimizers, moving averages."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take back what ``state_dict`` returned."""
        ...


class Run:
    """The steps of one training run. Ends cleanly, with a checkpoint, on SIGTERM and SIGINT."""

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], seed: int) -> None:
        """Continue from the folder's checkpoint where there is one, else start at step 0."""
        self.folder, self.step, self.seconds = folder, 0, 0.0
        self._parts, self._seed, self._stopped = dict(parts), seed, False
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT_FILE).exists():
            self._resume()
        self._forget_later_lines()
        self._write(start_line(self.step, seed))

    def steps(self, num_steps: int) -> Iterator[int]:
        """Yield the steps that are left, keeping checkpoints on the way and at the end."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        saved_at = started_at = time.monotonic()
        before = self.seconds
        try:
            while self.step < num_steps and not self._stopped:
                yield self.step
                self.step += 1
                self.seconds = before + time.monotonic() - started_at
                if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
            self.save()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def save(self) -> None:
        """Write the checkpoint so that at any moment a whole one is there, and draw the curves."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        unfinished = self.folder / f"{CHECKPOINT_FILE}.part"
        torch.save({"step": self.step, "seconds": self.seconds, "seed": self._seed, "parts": state}, unfinished)
        os.replace(unfinished, self.folder / CHECKPOINT_FILE)
        draw_curves(self.folder)

    def log(self, **values: float) -> None:
        """Add a line for the current step to the log, and show it."""
        line = {"step": self.step, "seconds": round(self.seconds, 1)}
        self._write(line | {name: round(float(value), 6) for name, value in values.items()})

    def rng(self, *purpose: int) -> np.random.Generator:
        """Random numbers of this step; ``purpose`` tells several streams of a step apart."""
        return np.random.default_rng((self._seed, self.step, *purpose))

    def seed_torch(self) -> None:
        """Let torch's own random numbers start from this step."""
        torch.manual_seed(int(self.rng(1).integers(2**62)))

    def _resume(self) -> None:
        content = torch.load(self.folder / CHECKPOINT_FILE, map_location="cpu", weights_only=True)
        if content["seed"] != self._seed:
            raise ValueError(f"{self.folder} was started with seed {content['seed']}, not {self._seed}")
        for name, part in self._parts.items():
            part.load_state_dict(content["parts"][name])
        self.step, self.seconds = content["step"], content["seconds"]

    def _forget_later_lines(self) -> None:
        """Drop the lines that a killed run wrote after its last checkpoint: their steps come again."""
        kept = [line for line in read_log(self.folder) if line["step"] <= self.step]
        (self.folder / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in kept))

    def _write(self, line: Mapping[str, Any]) -> None:
        add_line(self.folder, line)
        sys.stdout.write(" ".join(f"{name}={value}" for name, value in line.items()) + "\n")
        sys.stdout.flush()

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True


class Average(nn.Module):
    """Exponential moving average of a module's weights, in ``module``; young averages forget faster."""

    num_updates: torch.Tensor

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the weights of ``module``; buffers are copied."""
        self.num_updates += 1
        count = int(self.num_updates)
        weight = 1 - min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), weight)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


class Copies:
    """Twins of a module that compute in its place, each on its share of a batch in its own thread.

    Small operations fill a core each better than they share two, and where the CPU has products in bfloat16 the twins
    are in bfloat16, which moves half the memory. The weights that are kept, averaged and optimised stay in float32.
    """

    def __init__(self, module: nn.Module, num: int) -> None:
        """``num`` copies compute at a time, with one thread of torch's each."""
        self._master = module
        on_gpu = next(module.parameters()).is_cuda
        dtype = torch.bfloat16 if on_gpu or computes_in_half() else torch.float32
        self._copies = [deepcopy(module).to(dtype) for _ in range(num)]
        self._threads = ThreadPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, loss_of: Callable[..., torch.Tensor], *batch: torch.Tensor) -> float:
        """Give the master the gradients of ``loss_of(module, *batch)``, a mean over samples; returns the loss."""
        num_samples = len(batch[0])
        shares = list(zip(*(part.chunk(len(self._copies)) for part in batch), strict=True))

        def compute(copy: nn.Module, share: tuple[torch.Tensor, ...]) -> float:
            _refresh(copy, self._master)
            loss = loss_of(copy, *share) * (len(share[0]) / num_samples)
            loss.backward()
            return loss.item()

        total = sum(self._threads.map(compute, self._copies, shares))
        for master, *halves in zip(*(module.parameters() for module in (self._master, *self._copies)), strict=True):
            grads = [half.grad.float() for half in halves if half.grad is not None]
            master.grad = torch.stack(grads).sum(0) if grads else None
            for half in halves:
                half.grad = None
        return total


@torch.no_grad()
def _refresh(copy: nn.Module, master: nn.Module) -> None:
    torch._foreach_copy_(list(copy.parameters()), list(master.parameters()))


class Optimizers:
    """Muon for the matrices and kernels of ``module``, AdamW for everything else, under one rate."""

    def __init__(self, module: nn.Module, rate: float, *, tables: tuple[str, ...] = ()) -> None:
        """``rate`` is AdamW's; Muon's update is scaled to the same size.

        ``tables``: parts of the names of matrices and kernels that are tables, not maps: AdamW's.
        """
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            is_table = any(table in name for table in tables)
            (matrices if parameter.ndim in (2, 4) and not is_table else others).append(parameter)
        self._rate = rate
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0)
        ]
        if matrices:
            self._parts.append(Muon(matrices, lr=rate))
        self._parameters = [*matrices, *others]

    def step(self, factor: float, *, clip: float = 1.0) -> float:
        """Apply the gradients at ``factor`` times the rate and clear them; returns their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self._parameters, clip)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self._rate * factor
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """States of both."""
        return {str(index): part.state_dict() for index, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        for index, part in enumerate(self._parts):
            part.load_state_dict(state[str(index)])


def num_steps_done(folder: Path) -> int:
    """Steps of a run by its checkpoint; logs are told of some steps only. By its log where it needs no checkpoint."""
    file = folder / CHECKPOINT_FILE
    if not file.exists():
        return max(int(line["step"]) for line in read_log(folder))
    return int(torch.load(file, map_location="cpu", weights_only=True)["step"])


def latest_part(folder: Path, name: str, *, prefix: str = "") -> dict[str, Any]:
    """One part of a run's checkpoint: what is under ``prefix``, without it. Raises ``FileNotFoundError``."""
    content = torch.load(folder / CHECKPOINT_FILE, map_location="cpu", weights_only=True)
    state = content["parts"][name]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def rate_factor(step: int, num_steps: int, *, warm_up: int = 50, decay: float = 0.3) -> float:
    """Rise over ``warm_up`` steps, stay at 1, and fall to 0 in a line over the last ``decay`` of the steps."""
    left = (num_steps - step) / max(1.0, decay * num_steps)
    return min(1.0, (step + 1) / warm_up, left)


def add_arguments(parser: argparse.ArgumentParser, name: str, *, steps: int) -> None:
    """The options that every training command has."""
    parser.add_argument("--folder", type=Path, default=Path("build/training") / name, help="run folder (%(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help="optimizer steps in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=20261123, help="of everything random (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (%(default)s)")


def set_up(args: argparse.Namespace) -> torch.device:
    """Give torch its threads and first seed; returns the device."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    return torch.device(args.device)


def computes_in_half() -> bool:
    """Whether this CPU multiplies in bfloat16: without AVX-512, products of halves took seven times as long."""
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def precision(device: torch.device) -> AbstractContextManager[None]:
    """Bfloat16 products on a CPU that has them. On a GPU types stay as they are: kernels without gradients take one
    type only."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and computes_in_half())


def start_line(step: int, seed: int) -> dict[str, Any]:
    """What the log says of a start: command and machine."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    command = ["python", "-m", module.name, *sys.argv[1:]] if module else sys.argv
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return {
        "event": "start",
        "step": step,
        "seed": seed,
        "command": shlex.join(command),
        "hardware": f"{torch.get_num_threads()} threads, {hardware}",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def add_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a folder's log."""
    with (folder / LOG_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log."""
    file = folder / LOG_FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def draw_curves(folder: Path) -> None:
    """Draw every logged quantity over the steps into ``curves.png``."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and only checkpoints need it

    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_log(folder):
        for name, value in line.items():
            if name not in {"step", "seconds", "seed"} and isinstance(value, int | float):
                curves.setdefault(name, []).append((line["step"], value))
    if not curves:
        return
    figure = Figure(figsize=(5 * min(4, len(curves)), 3 * -(-len(curves) // 4)), layout="constrained")
    for index, (name, points) in enumerate(sorted(curves.items())):
        axes = figure.add_subplot(-(-len(curves) // 4), min(4, len(curves)), index + 1)
        axes.plot(*zip(*points, strict=True), linewidth=0.8)
        axes.set_title(name, fontsize=9)
    figure.savefig(folder / CURVES_FILE, dpi=80)
