"""The report of a run, for people, and the same for programs. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hiar_client.bench.plan import Load
from hiar_client.bench.summary import Quantiles, Summary
from hiar_client.bench.viewing import STALL_S, Viewing


def report(load: Load, summary: Summary, about: Mapping[str, Any]) -> str:
    """Tables in Markdown, which are read on a terminal too. ``about``: of the server and of this machine."""
    return "\n".join(
        [
            words_of(load),
            f"Model {about['model']}, {about['slots']} videos at a time. Asked from {about['cpus']} cores;",
            f"their load average was {about['load_average'][0]:.1f} in the end.",
            "",
            *_table(("", "count"), _counts(summary)),
            "",
            *_table(("seconds", "p50", "p90", "p99", "largest", "n"), _times(summary)),
            "",
            f"A stall is more than {STALL_S * 1e3:.0f} ms in which the picture stands still, if it plays from the",
            "first fragment on; stalls and gaps are those of viewers who read as it comes. A good video came to its",
            "end and never stood still.",
        ]
    )


def json_of(load: Load, summary: Summary, viewings: Sequence[Viewing], about: Mapping[str, Any]) -> str:
    """All of it, with one line a viewer."""
    told = {"about": dict(about), "load": {**vars(load), "mix": dict(load.mix)}, "summary": summary.plain()}
    lines = ",\n".join(f"  {json.dumps(_plain(viewing))}" for viewing in viewings)
    return f'{json.dumps(told, indent=1)[:-2]},\n "viewers": [\n{lines}\n ]\n}}\n'


def words_of(load: Load) -> str:
    """What was done, in one sentence."""
    if load.rate is not None:
        come = f"{load.rate:g} viewers a second come, at random"
    else:
        come = f"{load.concurrency} viewers at a time"
    mix = ", ".join(f"{name} {weight:g}" for name, weight in load.mix.items())
    size = f" at {load.size}" if load.size else ""
    return f"{come}; each asks for {load.seconds:g} s of video{size}, pace {load.pace}; {mix}; seed {load.seed}."


def _counts(summary: Summary) -> list[tuple[str, str]]:
    rows = [
        ("asked", f"{summary.asked} in {summary.took_s:.1f} s"),
        ("came to their end", f"{summary.completed}"),
        ("of them good", f"{summary.good}; {summary.good_a_s:.3f} a second"),
        ("seconds of video", f"{summary.video_s:.1f}; {summary.video_s_a_s:.2f} a second"),
        ("with stalls", f"{summary.stalled_videos}; {summary.stall_s:.2f} s together"),
    ]
    rows += [(f"refused: {code}", f"{count}") for code, count in summary.refused.items()]
    rows += [(f"failed: {code}", f"{count}") for code, count in summary.failed.items()]
    rows += [(f"ended: {reason}", f"{count}") for reason, count in summary.ended.items()]
    return [*rows, ("not ended", f"{summary.unfinished}")] if summary.unfinished else rows


def _times(summary: Summary) -> list[tuple[str, ...]]:
    named = (
        ("first fragment", summary.first_fragment_s),
        ("gap between fragments", summary.gap_s),
        ("a stall", summary.each_stall_s),
        ("cut to next fragment", summary.resume_s),
        ("new prompt to its first block", summary.change_s),
        ("request sent too late", summary.late_s),
    )
    return [(name, *_cells(times), str(times.n)) for name, times in named if times.n]


def _cells(times: Quantiles) -> list[str]:
    return [f"{value:.3f}" for value in (times.p50, times.p90, times.p99, times.largest) if value is not None]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [_row(head, widths), f"|{'|'.join('-' * (width + 2) for width in widths)}|"]
    return [*lines, *(_row(row, widths) for row in rows)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"


def _plain(viewing: Viewing) -> dict[str, Any]:
    told = {name: value for name, value in vars(viewing).items() if name != "arrivals" and value is not None}
    arrivals = [[round(one.at_s, 4), round(one.duration_s, 4)] for one in viewing.arrivals]
    return {**{name: _short(value) for name, value in told.items()}, "arrivals": arrivals}


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
