"""The table of plans in `docs/operations.md`, by the command itself: ``python -m tests.server.plan_table`` writes it
anew."""

import io
import re
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.true_shapes.folder import make_folder
from server.main import main

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"
SITES = (
    *((count, "h100-80") for count in (1, 4, 5, 6, 8, 16)),
    *((1, "rtx4090"), (5, "rtx4090"), (1, "l40s")),
)
"""Number and kind of GPUs."""
WORKER = re.compile(r"^cuda:\d.* (\d+\.\d+) +(\d+\.\d+)$", re.MULTILINE)
"""A worker's row: total, and what its device has."""


@dataclass(frozen=True)
class Planned:
    """What the command said of some GPUs."""

    count: int
    kind: str
    flags: str
    """Given to it, beside the GPUs."""
    status: int
    text: str

    @property
    def advice(self) -> str:
        """The flags that make it fit; empty if it fits."""
        return "" if self.status == 0 else self.text.rstrip().rpartition("\n")[2]

    @property
    def fullest_gb(self) -> tuple[float, float]:
        """Of the worker whose device is fullest: what it takes, and of how much."""
        workers = [(float(total), float(there)) for total, there in WORKER.findall(self.text)]
        return max(workers, key=lambda worker: worker[0] / worker[1])

    @property
    def frames_per_s(self) -> float:
        """As expected."""
        found = re.search(r"expected: about ([\d.]+) frames/s", self.text)
        assert found is not None
        return float(found[1])


def run(model: Path, count: int, kind: str, flags: str = "") -> Planned:
    """Ask the command of the model in a folder."""
    return planned(["--model", str(model)], count, kind, flags)


def planned(subject: Sequence[str], count: int, kind: str, flags: str = "") -> Planned:
    """Ask the command of what some flags name."""
    devices = ",".join(f"cuda:{index}" for index in range(count))
    arguments = [*subject, "--devices", devices, "--plan", "--assume", kind, *flags.split()]
    out = io.StringIO()
    try:
        with redirect_stdout(out):
            main(arguments)
    except SystemExit as end:
        assert isinstance(end.code, int), end.code
        return Planned(count, kind, flags, end.code, out.getvalue())
    raise AssertionError("the command has to exit")


def plans(model: Path) -> list[Planned]:
    """Of every site as it is, and with what is advised there."""
    found = []
    for count, kind in SITES:
        plain = run(model, count, kind)
        found.append(plain)
        if plain.advice:
            found.append(run(model, count, kind, plain.advice))
    return found


def table(found: Sequence[Planned]) -> str:
    """For people."""
    lines = [
        "| GPUs | flags | fits | fullest GPU | frames/s expected | what the plan advises |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        taken, there = one.fullest_gb
        flags, advice = (f"`{text}`" if text else "" for text in (one.flags, one.advice))
        lines.append(
            f"| {one.count} x {one.kind} | {flags} | {'no' if one.status else 'yes'} | {taken:.1f} of {there:.1f} GB "
            f"| {one.frames_per_s:.1f} | {advice} |"
        )
    return "\n".join(lines)


def with_table(document: str, found: Sequence[Planned]) -> str:
    """The document, with the table as it is now."""
    head, rest = document.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{table(found)}\n\n{END}{tail}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder) / "hiar")
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), plans(Path(folder) / "hiar")))
