"""The tables of `docs/checkpoints.md`: ``python -m tests.server.preset_tables`` writes them anew.

One is the table of presets, the other what ``hiar-server --plan`` says of them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine import PRESETS, Preset
from server.presets import steps_of
from tests.server.plan_table import Planned, planned

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoints.md"
PRESET_MARKS = ("<!-- presets: begin -->", "<!-- presets: end -->")
PLAN_MARKS = ("<!-- plans: begin -->", "<!-- plans: end -->")
KINDS = ("rtx4090", "h100-80")
"""Of one GPU: more of them make one block-first video no faster, which a plan of all videos does not show."""
PLANNED = ("hiar", "self-forcing", "causal-forcing-framewise", "one-forcing", "longlive", "causvid")
"""One of each kind of roll-out whose blocks all have the same steps."""
FLAGS = "--max-videos 1"


def preset_table() -> str:
    """All presets."""
    head = (
        "preset",
        "file",
        "takes",
        "order",
        "steps",
        "shift",
        "window / sink",
        "a block",
        "licence",
        "compared with",
    )
    return _table(head, map(_row, PRESETS.values()))


def plan_table(found: Iterable[Planned]) -> str:
    """What the command said of some presets."""
    head = ("preset", "GPU", "fits", "memory", "frames/s expected")
    return _table(head, map(_plan_row, found))


def plans() -> list[Planned]:
    """Of every kind of roll-out on every kind of GPU."""
    return [planned(["--preset", name], 1, kind, FLAGS) for name in PLANNED for kind in KINDS]


def with_table(document: str, marks: tuple[str, str], table: str) -> str:
    """The document with that table between its marks."""
    begin, end = marks
    head, rest = document.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n\n{table}\n\n{end}{tail}"


def _row(preset: Preset) -> Sequence[str]:
    rollout = preset.rollout
    files = (preset.file, *(lora.file for lora in preset.loras))
    return (
        f"`{preset.name}`",
        f"{preset.hub_id}: {' + '.join(f'`{file}`' for file in files)}",
        f"`{preset.transformer_key}`" if preset.transformer_key else "the best there is",
        rollout.order,
        steps_of(preset),
        f"{rollout.timestep_shift:g}",
        f"{rollout.window_latent_frames} / {rollout.sink_latent_frames}",
        str(rollout.latent_frames_per_block),
        preset.licence,
        _compared(preset),
    )


def _compared(preset: Preset) -> str:
    source = preset.source
    where = f"{source.repository}@{source.commit[:7]}" if source.commit else source.repository
    return f"`{preset.golden}`, {where}" if preset.golden else f"unverified; read in {where}"


def _plan_row(one: Planned) -> Sequence[str]:
    taken, there = one.fullest_gb
    name = one.text.partition(" ")[0]
    fits = "no" if one.status else "yes"
    return (
        f"`{name}`",
        one.kind,
        fits + (f"; with `{one.advice}`" if one.advice else ""),
        f"{taken:.1f} of {there:.1f} GB",
        f"{one.frames_per_s:.1f}",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    text = with_table(DOCUMENT.read_text(), PRESET_MARKS, preset_table())
    DOCUMENT.write_text(with_table(text, PLAN_MARKS, plan_table(plans())))
