"""Writes a model folder: sparse files, then random numbers into those that shall have some."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.true_shapes.files import (
    Tensors,
    open_safetensors,
    open_torch_file,
    write_safetensors,
    write_torch_file,
)
from benchmarks.true_shapes.layouts import Layout, WeightFile, diffusers, original
from benchmarks.true_shapes.numbers import fill
from benchmarks.true_shapes.sizes import SIZES

LAYOUTS = ("original", "diffusers")
MARK = ".true-shapes"
"""A file that says which files of its folder were made here."""
TELL_EVERY_S = 2.0

Say = Callable[[str], None]


def make_folder(
    folder: Path,
    *,
    layout: str = "original",
    size: str = "real",
    random: bool = False,
    random_text: bool = False,
    extra: bool = False,
    say: Say = print,
) -> None:
    """Make ``folder`` a model, in place of one that was made here before.

    Args:
        folder: is made; if it exists it must be empty or made by this function.
        layout: one of ``LAYOUTS``.
        size: one of ``SIZES``.
        random: give transformer and VAE random numbers, which take their place on the disk. Of ``hiar.pt`` only
            ``generator_ema`` gets some.
        random_text: give the text encoder random numbers.
        extra: add critic and optimizers to ``hiar.pt``.
        say: takes a line about each file.

    Raises:
        ValueError: the folder holds other files, the disk has no room, or ``extra`` asks for what diffusers folders
            do not have.
        OSError: a file cannot be written.
    """
    if extra and layout != "original":
        raise ValueError("only hiar.pt of the original layout has critic and optimizers")
    sizes = SIZES[size]
    files = original(sizes, extra=extra) if layout == "original" else diffusers(sizes)
    filled = [file for file in files.weights if (random_text if file.is_text else random)]
    _clear(folder)
    _require_room(folder, filled)
    _mark(folder, files)
    for file in files.weights:
        _write_sparse(folder, file, say)
    head_dim = sizes.text.dim_attn // sizes.text.num_heads
    for file in filled:
        _fill(folder, file, head_dim if file.is_text else None, say)
    for path, content in files.texts.items():
        _place(folder, path).write_text(content)


def apparent_bytes(folder: Path) -> int:
    """Length of all files of a folder, holes included."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take of the disk."""
    block_bytes = 512  # whatever the file system's own blocks are (stat(2))
    return sum(path.stat().st_blocks * block_bytes for path in folder.rglob("*") if path.is_file())


def shown(num_bytes: int) -> str:
    """A size for people."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"


def _clear(folder: Path) -> None:
    """Remove what an earlier run made. Raises ``ValueError`` for a folder with anything else in it."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    ours = {MARK, *(json.loads(mark.read_text())["files"] if mark.is_file() else ())}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if found - ours:
        example = min(found - ours)
        raise ValueError(f"{folder} holds files that were not made here, such as {example}; give an empty folder")
    for name in found:
        (folder / name).unlink()


def _require_room(folder: Path, filled: list[WeightFile]) -> None:
    needed, free = sum(file.groups[0].num_bytes for file in filled), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{folder} has {shown(free)} free and random numbers need {shown(needed)}")


def _mark(folder: Path, files: Layout) -> None:
    names = [*(file.path for file in files.weights), *files.texts]
    (folder / MARK).write_text(json.dumps({"files": names}) + "\n")


def _place(folder: Path, path: str) -> Path:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _write_sparse(folder: Path, file: WeightFile, say: Say) -> None:
    place = _place(folder, file.path)
    if place.suffix == ".safetensors":
        (tensors,) = file.groups
        write_safetensors(place, tensors)
    else:
        write_torch_file(place, file.groups, _trainer_values(file) if file.with_optimizers else {})
    count = sum(len(group.shapes) for group in file.groups)
    say(f"{file.path}: {count} tensors, {shown(place.stat().st_size)} in length")


def _trainer_values(file: WeightFile) -> dict[str, Any]:
    """What a trainer saves beside the networks: where it stood, and two moments of every parameter it trains."""

    def optimizer(tensors: Tensors) -> dict[str, Any]:
        with FakeTensorMode():
            state = {
                name: {"exp_avg": torch.empty(shape), "exp_avg_sq": torch.empty(shape)}
                for name, shape in tensors.shapes.items()
            }
        groups = [{"lr": 2e-6, "betas": (0.0, 0.999), "weight_decay": 0.01, "params": list(tensors.shapes)}]
        return {"state": state, "param_groups": groups}

    student, critic = file.groups[0], file.groups[-1]
    return {"step": 20_000, "generator_optimizer": optimizer(student), "critic_optimizer": optimizer(critic)}


def _fill(folder: Path, file: WeightFile, head_dim: int | None, say: Say) -> None:
    """Give the file's first group random numbers."""
    group, told_at = file.groups[0], time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if done == total or time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            say(f"{file.path}: {shown(done)} of {shown(total)} of random numbers")

    fill(_open(folder / file.path, group), head_dim, tell)


def _open(path: Path, tensors: Tensors) -> dict[str, Tensor]:
    return open_safetensors(path, tensors) if path.suffix == ".safetensors" else open_torch_file(path, tensors.key)
