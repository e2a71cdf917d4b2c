"""Contact sheets and curves as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from training.quality.backdrop import Pixels
from training.quality.summary import CURVES, NUM_SEGMENTS, Summary

NUM_MOMENTS = 10
MOMENT_PX = 96
TITLE_PX = 16
UNITS = {"sharpness": "variance of the Laplacian", "flow": "pixels a frame", "background error": "distance in RGB"}


def save_strip(file: Path, title: str, frames_THW3: Pixels) -> None:
    """A few moments of a video side by side, evenly apart, under a title."""
    moments = np.linspace(0, len(frames_THW3) - 1, NUM_MOMENTS).round().astype(int)
    strip = Image.new("RGB", (NUM_MOMENTS * MOMENT_PX, TITLE_PX + MOMENT_PX), "white")
    ImageDraw.Draw(strip).text((3, 2), title, fill="black")
    for place, t in enumerate(moments):
        moment = Image.fromarray(frames_THW3[t]).resize((MOMENT_PX, MOMENT_PX), Image.Resampling.LANCZOS)
        strip.paste(moment, (place * MOMENT_PX, TITLE_PX))
    strip.save(file)


def save_sheet(file: Path, strips: Sequence[Path]) -> None:
    """Strips under one another."""
    pictures = [np.asarray(Image.open(strip)) for strip in strips]
    Image.fromarray(np.concatenate(pictures)).save(file, optimize=True)


def save_curves(file: Path, title: str, summaries: Mapping[str, Summary]) -> None:
    """What is followed over the segments, one line a way of making videos; the band is the spread over seeds."""
    figure = Figure(figsize=(15, 6.5), layout="constrained")
    figure.suptitle(title)
    places = np.arange(1, NUM_SEGMENTS + 1)
    panels = list(figure.subplots(2, 4).flat)
    for axes, name in zip(panels, CURVES, strict=False):
        for label, summary in summaries.items():
            spreads = summary.segments[name]
            means = np.array([spread.mean for spread in spreads])
            deviations = np.array([spread.deviation or 0.0 for spread in spreads])
            line = axes.plot(places, means, marker="o", label=label)[0]
            axes.fill_between(places, means - deviations, means + deviations, color=line.get_color(), alpha=0.2)
        axes.set_title(name)
        axes.set_xlabel("segment")
        axes.set_ylabel(UNITS.get(name, "share"))
        axes.set_xticks(places)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylim(0, 1.02)
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center")
    figure.savefig(file, dpi=90)
