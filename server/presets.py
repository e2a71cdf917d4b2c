"""``hiar-server --list-presets``: the checkpoints whose roll-out is known."""

from collections.abc import Sequence
from typing import TextIO

from engine import PRESETS, Preset

_HEAD = ("preset", "hub id", "order", "steps", "window/sink", "frames a block", "licence")


def print_presets(out: TextIO) -> None:
    """A table for a terminal."""
    for line in aligned([_HEAD, *map(_row, PRESETS.values())]):
        out.write(line + "\n")
    out.write("\nfetch one by hiar-download NAME --to DIR, serve it by hiar-server --model DIR\n")


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def steps_of(preset: Preset) -> str:
    """The steps, those of block 0 where it has others, and whether they are raw."""
    rollout = preset.rollout
    first = f" ({_listed(rollout.first_block_steps)} in the first block)" if rollout.first_block_steps else ""
    return _listed(rollout.denoising_steps) + (" raw" if rollout.raw_steps else "") + first


def _row(preset: Preset) -> tuple[str, ...]:
    rollout = preset.rollout
    return (
        preset.name,
        preset.hub_id,
        rollout.order,
        steps_of(preset),
        f"{rollout.window_latent_frames}/{rollout.sink_latent_frames}",
        str(rollout.latent_frames_per_block),
        preset.licence,
    )


def _listed(steps: tuple[int, ...]) -> str:
    return ",".join(map(str, steps))
