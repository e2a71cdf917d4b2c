"""The report in words and tables, and the same numbers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from training.quality.checker import Attribute
from training.quality.measures import DYNAMIC_FLOW_PX, VISIBLE_CHANGE
from training.quality.summary import DRIFTING, Summary
from training.world import Split

Lengths = Mapping[int, Mapping[str, Summary]]
"""By length in seconds and by name of the entry."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is told."""

    command: str
    machine: str
    model: Mapping[str, str]
    """What each entry's manifest says of its training."""
    num_prompts: Mapping[Split, int]
    num_seeds: int
    window_s: float
    chance: float
    """Accuracy of videos of other scenes."""
    splits: Mapping[Split, Lengths]
    pictures: Sequence[str]

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def as_markdown(report: Report) -> str:
    """The report as people read it."""
    parts = [_head(report)]
    for split, lengths in report.splits.items():
        for seconds, summaries in lengths.items():
            title = "trained combinations" if split is Split.TRAIN else "combinations never trained"
            parts += [f"## {seconds} s, {report.num_prompts[split]} prompts of {title}", _main_table(summaries)]
            parts += ["What the checker finds, by attribute:", _attribute_table(summaries)]
            parts += [
                "Change from the first of five segments to the last, by a straight line:",
                _drift_table(summaries),
            ]
            parts += ["Prompt accuracy in each segment:", _segment_table(summaries)]
    parts += [f"![{name}]({name})" for name in report.pictures]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    models = "\n".join(f"* `{name}`: {words}" for name, words in report.model.items())
    return f"""# Prompts, motion and drift, measured

    {report.command}

{report.machine}. {report.num_seeds} seed(s) a prompt; ± is the standard deviation over seeds of the mean over prompts.

{models}

A video is read in windows of {report.window_s:g} s by a checker that is told nothing of the prompt. *Accuracy* is the
share of what the prompt says (count, background; shape, colour, size, motion and direction of each thing) that it
finds; *perfect* is the share of windows in which it finds all. Videos of other scenes reach {report.chance:.3f}:
that is chance. The row `world` is rendered from the scene itself: what a perfect model would reach, and how much these
measures change by themselves. *Flow* is the optical flow of the fastest 5 % of the pixels, near those that change by
{VISIBLE_CHANGE} grey levels or more, in pixels a frame; a video is *dynamic* above {DYNAMIC_FLOW_PX:g}. *Background
error* is the distance of a typical pixel from the nearest background of the world, in grey levels. *Flicker* is the
change from block to block over the change inside blocks; 1 is seamless. *Drift* is the mean of the
changes of {", ".join(DRIFTING)}, each without its sign; the paper's weights and
learned measures (MUSIQ, CLIP-IQA, DINOv2, LPIPS) are not used, so its numbers do not compare. A shorter video is the
beginning of a longer one: noise is keyed by block and nothing looks ahead."""


def _main_table(summaries: Mapping[str, Summary]) -> str:
    rows = [
        (name, str(s.accuracy), str(s.perfect), str(s.flow_px), str(s.dynamic), str(s.drift), str(s.flicker or "still"))
        for name, s in summaries.items()
    ]
    return table(("", "accuracy", "perfect", "flow", "dynamic", "drift", "flicker"), rows)


def _attribute_table(summaries: Mapping[str, Summary]) -> str:
    rows = [(name, *(_share(s.by_attribute[str(a)]) for a in Attribute)) for name, s in summaries.items()]
    return table(("", *map(str, Attribute)), rows)


def _drift_table(summaries: Mapping[str, Summary]) -> str:
    names = list(next(iter(summaries.values())).changes)
    rows = [(name, *(f"{s.changes[n].mean:+.3f}" for n in names)) for name, s in summaries.items()]
    return table(("", *names), rows)


def _segment_table(summaries: Mapping[str, Summary]) -> str:
    rows = [(name, *map(str, s.segments["accuracy"])) for name, s in summaries.items()]
    return table(("", "1", "2", "3", "4", "5"), rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
