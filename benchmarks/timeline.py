"""Pictures of what workers did and when: a trace for Perfetto, and the diagonal as an SVG.

Pure functions of recorded spans. Times are those of one host's clock; knows no engine and no file.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from engine.trace import Phase, Span

_LANE_GROUP = {
    Phase.RECEIVE: 0,
    Phase.TEXT: 0,
    Phase.DENOISE: 1,
    Phase.CACHE: 1,
    Phase.SEND: 2,
    Phase.DECODE: 2,
    Phase.ENCODE: 2,
}
"""Lanes of a worker from top to bottom: what comes in, the passes stage by stage, what goes out."""

_DRAWN = (Phase.DENOISE, Phase.CACHE, Phase.DECODE, Phase.ENCODE)

# Okabe-Ito colours, told apart by colour-blind readers; dark and light take turns, so that neighbours differ in grey
# print too. Each with the ink that can be read on it.
_BLOCK_COLOURS = (
    ("#0072b2", "#ffffff"),
    ("#f0a832", "#222222"),
    ("#00805e", "#ffffff"),
    ("#7cc5ee", "#222222"),
    ("#c04f00", "#ffffff"),
    ("#e3a5c7", "#222222"),
)
_LEGEND_COLOUR = "#666666"
_INK = "#222222"

_WIDTH_PX = 1200
_LEFT_PX = 110
_RIGHT_PX = 24
_TOP_PX = 76
_ROW_PX = 44
_ROW_GAP_PX = 10
_AXIS_PX = 52
_DIGIT_PX = 7
_STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #222222 }
.head { font-size: 18px; font-weight: 600 }
.small { font-size: 11px; fill: #666666 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.number { font-size: 12px; text-anchor: middle; dominant-baseline: central; pointer-events: none }
.grid { stroke: #e4e4e4 }
.axis { stroke: #888888 }
"""


def chrome_trace(spans: tuple[Span, ...]) -> dict[str, Any]:
    """The spans in the Chrome trace event format, which Perfetto and ``chrome://tracing`` open once dumped as JSON.

    A process is a worker (pid = rank); a thread is a lane of it: a phase of a stage (``cache[1]``) or a phase
    outside the stages (``decode``). Events of a lane never overlap: where two would, as when one forward holds
    passes of several videos, the later goes to a further lane (``denoise[1] (2)``). Times are microseconds since
    the first span began, exact to a nanosecond. No span gives no event.
    """
    start_s = min((span.began_s for span in spans), default=0.0)
    lanes: dict[tuple[int, tuple[int, int, int], str], list[Span]] = defaultdict(list)
    for span in spans:
        lanes[span.rank, _lane_order(span), _lane_name(span)].append(span)
    ranks = sorted({span.rank for span in spans})
    events = [event for rank in ranks for event in _naming("process", f"worker {rank}", rank, rank)]
    tids = count(1)
    for (rank, _, name), members in sorted(lanes.items(), key=lambda lane: lane[0]):
        for index, line in enumerate(_lines(members)):
            tid = next(tids)
            events += _naming("thread", name if index == 0 else f"{name} ({index + 1})", rank, tid)
            events += [_complete_event(span, start_s, tid) for span in line]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def diagonal_svg(spans: tuple[Span, ...], title: str, num_blocks: int = 16) -> str:
    """Draw the diagonal: a row for each stage, time in seconds across, colours and numbers for blocks.

    A denoise pass and a decode are full, a cache pass is paler, an encode is an outline. Spans of a row that overlap
    in time, above all the passes of a fused forward, are stacked and share the row's height. Pointing at a rectangle
    shows its block, video and times.

    Args:
        spans: what was recorded; phases outside the stages' work (receive, send, text) are not drawn.
        title: the line above the picture.
        num_blocks: how many blocks are drawn, counted from the lowest in ``spans``.

    Returns:
        A standalone SVG document, 1200 px wide.

    Raises:
        ValueError: there is nothing to draw.
    """
    drawn = _first_blocks(spans, num_blocks)
    rows: dict[tuple[int, bool, int], list[Span]] = defaultdict(list)
    for span in drawn:
        rows[span.rank, span.stage is None, span.stage or 0].append(span)
    bottom_px = _TOP_PX + len(rows) * (_ROW_PX + _ROW_GAP_PX)
    axis = _Axis(start_s=min(span.began_s for span in drawn), end_s=max(span.ended_s for span in drawn))
    svg = _blank_page(title, height_px=bottom_px + _AXIS_PX)
    _draw_legend(svg)
    _draw_axis(svg, axis, bottom_px)
    for index, key in enumerate(sorted(rows)):
        _draw_row(svg, axis, rows[key], _TOP_PX + index * (_ROW_PX + _ROW_GAP_PX))
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode", xml_declaration=True) + "\n"


def _lane_name(span: Span) -> str:
    return span.phase.value if span.stage is None else f"{span.phase.value}[{span.stage}]"


def _lane_order(span: Span) -> tuple[int, int, int]:
    return _LANE_GROUP[span.phase], span.stage or 0, list(Phase).index(span.phase)


def _by_time(span: Span) -> tuple[float, tuple[int, int, int], str, int]:
    """Sort key; of spans that begin together the denoise passes come first."""
    return span.began_s, _lane_order(span), span.video, span.block


def _lines(spans: Iterable[Span], slack_s: float = 0.0) -> list[list[Span]]:
    """Deal spans onto as few lines as keep those of a line apart, but for ``slack_s``; the upper line first."""
    lines: list[list[Span]] = []
    for span in sorted(spans, key=_by_time):
        free = next((line for line in lines if line[-1].ended_s <= span.began_s + slack_s), None)
        if free is None:
            lines.append([span])
        else:
            free.append(span)
    return lines


def _naming(kind: str, name: str, pid: int, tid: int) -> list[dict[str, Any]]:
    """Metadata events that name a process or a thread and fix its place in the list."""
    place = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    return [
        {"name": f"{kind}_name", "args": {"name": name}, **place},
        {"name": f"{kind}_sort_index", "args": {"sort_index": tid}, **place},
    ]


def _complete_event(span: Span, start_s: float, tid: int) -> dict[str, Any]:
    # Both ends are rounded before they are subtracted, so that rounding cannot make neighbours overlap.
    began_ns = round((span.began_s - start_s) * 1e9)
    ended_ns = round((span.ended_s - start_s) * 1e9)
    return {
        "name": f"block {span.block}" if span.block >= 0 else span.phase.value,
        "cat": span.phase.value,
        "ph": "X",
        "ts": began_ns / 1000,
        "dur": (ended_ns - began_ns) / 1000,
        "pid": span.rank,
        "tid": tid,
        "args": {"video": span.video, "block": span.block},
    }


def _first_blocks(spans: tuple[Span, ...], num_blocks: int) -> list[Span]:
    work = [span for span in spans if span.phase in _DRAWN and span.block >= 0]
    lowest = min((span.block for span in work), default=0)
    drawn = [span for span in work if span.block < lowest + num_blocks]
    if not drawn:
        raise ValueError(f"none of {len(spans)} spans is work on the first {num_blocks} blocks")
    return drawn


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Time, from the left margin to the right one."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return max(self.end_s - self.start_s, 1e-9)

    def x_px(self, time_s: float) -> float:
        return _LEFT_PX + (time_s - self.start_s) / self.length_s * (_WIDTH_PX - _LEFT_PX - _RIGHT_PX)

    def ticks_s(self) -> list[float]:
        """Seconds since the start: 12 steps at most, each 1, 2 or 5 times a power of ten."""
        decade_s: float = 10.0 ** math.floor(math.log10(self.length_s / 12))
        steps_s = (decade_s, 2 * decade_s, 5 * decade_s)
        step_s = next((step_s for step_s in steps_s if 12 * step_s >= self.length_s), 10 * decade_s)
        return [index * step_s for index in range(int(self.length_s / step_s * (1 + 1e-9)) + 1)]


def _blank_page(title: str, height_px: int) -> Element:
    size = {"width": str(_WIDTH_PX), "height": str(height_px), "viewBox": f"0 0 {_WIDTH_PX} {height_px}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    SubElement(svg, "title").text = title
    SubElement(svg, "style").text = _STYLE
    SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _write(svg, 16, 30, title, "head")
    return svg


def _write(svg: Element, x_px: float, y_px: float, words: str, kind: str = "") -> None:
    place = {"x": f"{x_px:.2f}", "y": f"{y_px:.2f}"}
    SubElement(svg, "text", {**place, "class": kind} if kind else place).text = words


def _draw_line(svg: Element, start_px: tuple[float, float], end_px: tuple[float, float], kind: str) -> None:
    (x1, y1), (x2, y2) = start_px, end_px
    ends = {"x1": f"{x1:.2f}", "y1": f"{y1:.2f}", "x2": f"{x2:.2f}", "y2": f"{y2:.2f}"}
    SubElement(svg, "line", {**ends, "class": kind})


def _draw_legend(svg: Element) -> None:
    entries = ((Phase.DENOISE, "denoise pass, decode"), (Phase.CACHE, "cache pass"), (Phase.ENCODE, "encode"))
    x_px = 16
    for phase, words in entries:
        place = {"x": f"{x_px}.5", "y": "45.5", "width": "25", "height": "13"}
        SubElement(svg, "rect", {**place, "class": "legend", **_paint(phase, _LEGEND_COLOUR)})
        _write(svg, x_px + 33, 57, words)
        x_px += 62 + _DIGIT_PX * len(words)
    _write(svg, x_px, 57, "colour and number: the block; stacked: at the same time, as in a fused forward")


def _draw_axis(svg: Element, axis: _Axis, bottom_px: float) -> None:
    for tick_s in axis.ticks_s():
        x_px = axis.x_px(axis.start_s + tick_s)
        _draw_line(svg, (x_px, _TOP_PX), (x_px, bottom_px + 5), "grid")
        _write(svg, x_px, bottom_px + 20, f"{tick_s:.6g}", "middle")
    _draw_line(svg, (_LEFT_PX, bottom_px), (_WIDTH_PX - _RIGHT_PX, bottom_px), "axis")
    _write(svg, (_LEFT_PX + _WIDTH_PX - _RIGHT_PX) / 2, bottom_px + 40, "time, seconds", "middle")


def _draw_row(svg: Element, axis: _Axis, spans: Sequence[Span], top_px: float) -> None:
    stage = spans[0].stage
    name = "decode" if stage is None else f"denoise[{stage}]"
    _write(svg, _LEFT_PX - 14, top_px + _ROW_PX / 2 - 1, name, "end")
    _write(svg, _LEFT_PX - 14, top_px + _ROW_PX / 2 + 14, f"worker {spans[0].rank}", "small end")
    # Less than half a pixel cannot be seen.
    slack_s = axis.length_s / _WIDTH_PX / 2
    for together in _overlapping(spans, slack_s):
        lines = [line for phase in _DRAWN for line in _lines((s for s in together if s.phase == phase), slack_s)]
        height_px = _ROW_PX / len(lines)
        for index, line in enumerate(lines):
            for span in line:
                _draw_span(svg, axis, span, top_px + index * height_px, height_px)


def _overlapping(spans: Iterable[Span], slack_s: float) -> Iterator[list[Span]]:
    """Split spans at every time at which none is under way, or none for more than ``slack_s``."""
    together: list[Span] = []
    for span in sorted(spans, key=_by_time):
        if together and max(other.ended_s for other in together) <= span.began_s + slack_s:
            yield together
            together = []
        together.append(span)
    if together:
        yield together


def _draw_span(svg: Element, axis: _Axis, span: Span, top_px: float, height_px: float) -> None:
    """One rectangle, half a pixel inside its place so that neighbours keep apart, and its number if that fits."""
    colour, ink = _BLOCK_COLOURS[span.block % len(_BLOCK_COLOURS)]
    left_px = axis.x_px(span.began_s)
    width_px = axis.x_px(span.ended_s) - left_px
    place = {"x": f"{left_px + 0.75:.2f}", "y": f"{top_px + 0.75:.2f}"}
    size = {"width": f"{max(width_px - 1.5, 0.5):.2f}", "height": f"{height_px - 1.5:.2f}"}
    rect = SubElement(svg, "rect", {**place, **size, "class": f"span {span.phase}", **_paint(span.phase, colour)})
    began_s, ended_s = span.began_s - axis.start_s, span.ended_s - axis.start_s
    about = f"{_lane_name(span)}, block {span.block}, video {span.video}, {began_s:.6g} s to {ended_s:.6g} s"
    SubElement(rect, "title").text = about
    number = str(span.block)
    if width_px >= _DIGIT_PX * len(number) + 6 and height_px >= 14:
        _write(svg, left_px + width_px / 2, top_px + height_px / 2, number, "number")
        svg[-1].set("style", f"fill: {ink if _is_full(span.phase) else _INK}")


def _is_full(phase: Phase) -> bool:
    return phase in {Phase.DENOISE, Phase.DECODE}


def _paint(phase: Phase, colour: str) -> dict[str, str]:
    if _is_full(phase):
        return {"fill": colour, "stroke": colour}
    return {"fill": _paler(colour) if phase == Phase.CACHE else "#ffffff", "stroke": colour}


def _paler(colour: str) -> str:
    """Three quarters of the way from ``#rrggbb`` to white."""
    return "#" + "".join(f"{255 - (255 - int(colour[at : at + 2], 16)) // 4:02x}" for at in (1, 3, 5))
