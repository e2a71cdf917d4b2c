"""A picture of a run as SVG: what viewers waited for, over time, and how many there were. Pure; needs no package."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise

from hiar_client.bench.summary import PERCENTS, STEADY, quantile
from hiar_client.bench.viewing import Viewing

_WIDTH, _PANEL, _TOP, _LEFT, _RIGHT, _BETWEEN = 900, 170, 88, 64, 120, 58
_NUM_WINDOWS_MAX, _NUM_POINTS_OF_A_WINDOW = 30, 6
_NUM_DOTS_MAX = 600
"""Of a panel: more would say no more, and make a large file."""
_COLORS = {50: "#2463b4", 90: "#b06c00", 99: "#b3202c"}
_DOT, _INK, _GRID, _BACK = "#9aa7b8", "#1c2430", "#e2e6ec", "#ffffff"

Point = tuple[float, float]
"""Seconds since the beginning of the run, and a value."""


@dataclass(frozen=True)
class _Scale:
    """From numbers of a panel to places of the picture."""

    top: float
    last_s: float
    largest: float

    def x(self, at_s: float) -> float:
        return _LEFT + at_s / self.last_s * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.top + _PANEL * (1 - min(value, self.largest) / self.largest)


def chart(viewings: Sequence[Viewing], took_s: float, about: str) -> str:
    """The picture of a run that took so long. ``about``: what it was, in one sentence."""
    firsts = [(viewing.asked_at_s, wait_s) for viewing in viewings if (wait_s := viewing.first_after_s) is not None]
    steady = [viewing for viewing in viewings if viewing.behaviour in STEADY]
    gaps = [(later.at_s, later.at_s - one.at_s) for viewing in steady for one, later in pairwise(viewing.arrivals)]
    last_s = max(took_s, 1.0)
    parts = [
        _text(_LEFT, 26, "What viewers saw", size=17, weight="bold"),
        _text(_LEFT, 46, about, size=12),
        *_quantile_panel(0, "Time to the first fragment", firsts, last_s),
        *_quantile_panel(1, "Gap between fragments, of viewers who read as it comes", gaps, last_s),
        *_viewer_panel(2, viewings, last_s),
    ]
    height = _top(2) + _PANEL + 44
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">'
    back = f'<rect width="{_WIDTH}" height="{height}" fill="{_BACK}"/>'
    return "\n".join([head, back, *parts, "</svg>", ""])


def windows(points: Sequence[Point], last_s: float, percent: int) -> list[Point]:
    """The quantile of each window of the run that has a point, at the window's middle. Few points get wide windows."""
    count = min(_NUM_WINDOWS_MAX, max(1, len(points) // _NUM_POINTS_OF_A_WINDOW))
    held: dict[int, list[float]] = {}
    for at_s, value in points:
        held.setdefault(min(int(at_s / last_s * count), count - 1), []).append(value)
    found = ((window, quantile(sorted(values), percent)) for window, values in sorted(held.items()))
    return [((window + 0.5) / count * last_s, value) for window, value in found if value is not None]


def _quantile_panel(row: int, title: str, points: Sequence[Point], last_s: float) -> list[str]:
    scale = _Scale(_top(row), last_s, _above(max((value for _, value in points), default=1.0)))
    parts = _frame(scale, f"{title} (s); n = {len(points)}", f"{scale.largest:g}")
    step = -(-len(points) // _NUM_DOTS_MAX) or 1
    parts += [_dot(scale.x(at_s), scale.y(value), _DOT) for at_s, value in points[::step]]
    for number, percent in enumerate(PERCENTS):
        found = windows(points, last_s, percent)
        parts.append(_line(found if len(found) != 1 else _level(found[0][1], last_s), scale, _COLORS[percent]))
        parts.append(_key(scale, number, f"p{percent}", _COLORS[percent]))
    return [*parts, _key(scale, len(PERCENTS), "each one", _DOT)]


def _viewer_panel(row: int, viewings: Sequence[Viewing], last_s: float) -> list[str]:
    steps = _watching(viewings, last_s)
    scale = _Scale(_top(row), last_s, _above(max((value for _, value in steps), default=1.0)))
    parts = _frame(scale, "Viewers who have video", f"{scale.largest:g}")
    parts.append(_line(_stairs(steps), scale, _COLORS[50]))
    stalls = [at_s for viewing in viewings if viewing.behaviour in STEADY for at_s, _ in viewing.stalls()]
    refused = [viewing.asked_at_s for viewing in viewings if viewing.was_refused]
    for number, (name, times, color) in enumerate((("stall", stalls, _COLORS[99]), ("refused", refused, _COLORS[90]))):
        height = scale.top + _PANEL - 6 - 10 * number
        parts += [_dot(scale.x(min(at_s, last_s)), height, color, radius=3.5) for at_s in times]
        parts.append(_key(scale, number + 1, f"{name}: {len(times)}", color))
    parts.append(_key(scale, 0, "viewers", _COLORS[50]))
    return [*parts, _text(_LEFT, scale.top + _PANEL + 34, "seconds since the beginning of the run", size=12)]


def _watching(viewings: Sequence[Viewing], last_s: float) -> list[Point]:
    """How many had video, from each moment at which that changed."""
    changes = [(viewing.arrivals[0].at_s, 1) for viewing in viewings if viewing.arrivals]
    changes += [(viewing.ended_at_s or last_s, -1) for viewing in viewings if viewing.arrivals]
    changes.sort()
    counts = accumulate(change for _, change in changes)
    return [(0.0, 0.0), *((at_s, float(count)) for (at_s, _), count in zip(changes, counts, strict=True))]


def _level(value: float, last_s: float) -> list[Point]:
    """One window only: a line all the way, since a point would not be seen."""
    return [(0.0, value), (last_s, value)]


def _stairs(steps: Sequence[Point]) -> list[Point]:
    return [*(point for one, later in pairwise(steps) for point in (one, (later[0], one[1]))), *steps[-1:]]


def _frame(scale: _Scale, title: str, largest: str) -> list[str]:
    parts = [_text(_LEFT, scale.top - 10, title, size=13)]
    for part, label in ((0.0, "0"), (0.5, ""), (1.0, largest)):
        y = scale.y(part * scale.largest)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, y + 4, label, size=12, anchor="end"))
    step = _above(scale.last_s / 8)
    for number in range(int(scale.last_s / step) + 1):
        x = scale.x(number * step)
        parts.append(_text(x, scale.top + _PANEL + 17, f"{number * step:g}", size=12, anchor="middle"))
    return parts


def _line(points: Sequence[Point], scale: _Scale, color: str) -> str:
    path = " ".join(f"{scale.x(at_s):.1f},{scale.y(value):.1f}" for at_s, value in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>'


def _dot(x: float, y: float, color: str, radius: float = 1.8) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"/>'


def _key(scale: _Scale, number: int, text: str, color: str) -> str:
    x, y = _WIDTH - _RIGHT + 14, scale.top + 10 + 18 * number
    return f'<rect x="{x}" y="{y - 5:.1f}" width="12" height="4" fill="{color}"/>{_text(x + 18, y + 1, text, size=12)}'


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _top(row: int) -> int:
    return _TOP + row * (_PANEL + _BETWEEN)


def _above(value: float) -> float:
    """The next round number."""
    rounds = (step * 10.0**power for power in range(-4, 7) for step in (1, 1.5, 2, 3, 4, 5, 6, 8))
    return next((step for step in rounds if step >= value), value)
