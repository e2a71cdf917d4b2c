"""A picture of many scenes: one row each, with a few moments and the caption.

python -m training.sheet world.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw

from training.captions import describe
from training.render import render
from training.world import Scene, Split, draw_scene

NUM_MOMENTS = 8
FRAMES_BETWEEN = 8
PICTURE_PX = 128
CAPTION_PX = 18


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="PNG file to write")
    parser.add_argument("--scenes", type=int, default=12, help="rows of the sheet (default: 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=Split, default=Split.TRAIN, choices=list(Split))
    arguments = parser.parse_args()
    rng = default_rng(arguments.seed)
    write_sheet(arguments.file, [draw_scene(rng, arguments.split) for _ in range(arguments.scenes)], rng)


def write_sheet(file: Path, scenes: Sequence[Scene], rng: Generator) -> None:
    """Write a PNG with a row for each scene, half a second between its pictures."""
    rows = [_row(scene, describe(scene, rng)) for scene in scenes]
    Image.fromarray(np.concatenate(rows)).save(file)


def _row(scene: Scene, caption: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    frames = render(scene, 0, NUM_MOMENTS * FRAMES_BETWEEN, PICTURE_PX)[::FRAMES_BETWEEN]
    pictures = np.concatenate(list(frames), axis=1)
    title = Image.new("RGB", (pictures.shape[1], CAPTION_PX), "white")
    ImageDraw.Draw(title).text((4, 3), caption, fill="black")
    return np.concatenate([np.asarray(title), pictures])


if __name__ == "__main__":
    main()
