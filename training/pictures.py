"""Contact sheets: a row of frames for each caption, as one PNG. Knows no model and no scene."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

CAPTION_PX = 16


def save_rows(file: Path, rows: Sequence[tuple[str, Tensor]]) -> None:
    """Write rows of as many frames each, RGB in [0, 1] [T, 3, H, W], under their captions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([_row(caption, frames) for caption, frames in rows])).save(file)


def _row(caption: str, frames_TCHW: Tensor) -> np.ndarray:
    pixels = (frames_TCHW.clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
    line = np.concatenate(list(pixels), axis=1)
    if not caption:
        return line
    title = Image.new("RGB", (line.shape[1], CAPTION_PX), "white")
    ImageDraw.Draw(title).text((4, 2), caption, fill="black")
    return np.concatenate([np.asarray(title), line])
