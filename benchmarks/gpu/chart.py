"""Bars as SVG, written by hand: torch brings nothing that draws."""

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from benchmarks.gpu.record import Panel

_WIDTH_PX = 1000
_LABEL_PX = 330
_VALUE_PX = 120
_ROW_PX = 22
_BAR_PX = 15
_TITLE_PX = 40
_TOP_PX = 56
_BASELINE_PX = 12
_OURS, _OTHERS = "#0072b2", "#b8b8b8"
_STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #222222 }
.head { font-size: 18px; font-weight: 600 }
.title { font-weight: 600 }
.end { text-anchor: end }
"""


def bar_chart(title: str, panels: Sequence[Panel]) -> str:
    """All panels under one another; ours in blue, what it is compared with in grey."""
    drawn = [panel for panel in panels if panel.bars]
    height_px = _TOP_PX + sum(_TITLE_PX + _ROW_PX * len(panel.bars) for panel in drawn) + _ROW_PX
    size = {"width": str(_WIDTH_PX), "height": str(height_px), "viewBox": f"0 0 {_WIDTH_PX} {height_px}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    SubElement(svg, "title").text = title
    SubElement(svg, "style").text = _STYLE
    SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _write(svg, title, 16, 30, "head")
    top_px = _TOP_PX
    for panel in drawn:
        _draw(svg, panel, top_px)
        top_px += _TITLE_PX + _ROW_PX * len(panel.bars)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _draw(svg: Element, panel: Panel, top_px: int) -> None:
    _write(svg, f"{panel.title}, {panel.unit}", 16, top_px + 24, "title")
    longest = max(bar.value for bar in panel.bars) or 1.0
    for index, bar in enumerate(panel.bars):
        y_px = top_px + _TITLE_PX + _ROW_PX * index
        width_px = (_WIDTH_PX - _LABEL_PX - _VALUE_PX) * max(bar.value, 0.0) / longest
        box = {"x": str(_LABEL_PX), "y": str(y_px), "width": f"{width_px:.1f}", "height": str(_BAR_PX)}
        SubElement(svg, "rect", {**box, "fill": _OURS if bar.ours else _OTHERS})
        _write(svg, bar.label, _LABEL_PX - 8, y_px + _BASELINE_PX, "end")
        _write(svg, f"{bar.value:.3g}", _LABEL_PX + width_px + 6, y_px + _BASELINE_PX, "value")


def _write(svg: Element, text: str, x_px: float, y_px: float, kind: str) -> None:
    SubElement(svg, "text", {"x": f"{x_px:.1f}", "y": f"{y_px:.1f}", "class": kind}).text = text
