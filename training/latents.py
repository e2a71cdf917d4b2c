"""Encodes clips of the world into latents with their captions: what the teacher learns from.

    python -m training.latents --autoencoder build/training/autoencoder --clips 4000 --length 9
    python -m training.latents --autoencoder build/training/autoencoder --split held_out --clips 64 --length 21 \\
        --folder build/training/latents-check
    python -m training.latents --motions "spin clockwise" "spin counterclockwise" --folder build/training/latents-spins
    python -m training.latents --things 2 --folder build/training/latents-pairs

The last two make clips of what is hard to learn, to be mixed with others. Clip i is a pure function of the seed and i.
A stopped command goes on where it was. The folder holds ``latents.npy`` (float16, memory-mapped), ``clips.jsonl`` (the
captions of each clip) and ``log.jsonl``.

Letters: M clips, T latent frames of a clip, C channels, Y and X latent height and width, B samples, N blocks,
F latent frames of a block.
"""

import argparse
import json
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, require
from engine.model.tiny_vae import STRIDE
from training.autoencoder import DECODER, SIZE_PX, Autoencoder, load_autoencoder, to_pixels
from training.captions import describe
from training.render import render
from training.run import add_line, set_up, start_line
from training.world import Motion, Scene, Split, draw_scene

LATENTS_FILE = "latents.npy"
CLIPS_FILE = "clips.jsonl"
NUM_CAPTIONS = 8
"""Sentences kept for each clip."""
CLIPS_AT_ONCE = 8
FRAMES_PER_BLOCK = 3

Array = NDArray[np.float16]


@dataclass(frozen=True)
class Windows:
    """Parts of clips, and where in their clips they begin."""

    latents_BNFCYX: Tensor
    """Float32."""
    first_blocks_B: Tensor
    captions: list[str]


@dataclass(frozen=True)
class Latents:
    """Encoded clips; all have one length."""

    latents_MTCYX: Array
    captions: tuple[tuple[str, ...], ...]
    """Several for each clip."""

    def draw(self, rng: np.random.Generator, num_samples: int, num_frames: int, *, anywhere: bool = False) -> Windows:
        """Random windows of random clips; they begin where clips do, or at any of their blocks.

        ``num_frames``: latent frames of a window, whole blocks or fewer than one.
        """
        per_block = min(num_frames, FRAMES_PER_BLOCK)
        latest = (self.latents_MTCYX.shape[1] - num_frames) // per_block if anywhere else 0
        windows, blocks, captions = [], [], []
        for _ in range(num_samples):
            clip, block = int(rng.integers(len(self.latents_MTCYX))), int(rng.integers(latest + 1))
            windows.append(self.latents_MTCYX[clip, block * per_block : block * per_block + num_frames])
            blocks.append(block)
            captions.append(self.captions[clip][int(rng.integers(len(self.captions[clip])))])
        samples_BTCYX = torch.from_numpy(np.stack(windows)).float()
        return Windows(samples_BTCYX.unflatten(1, (-1, per_block)), torch.tensor(blocks), captions)


def open_latents(folder: Path) -> Latents:
    """The whole clips of a folder. Raises ``FileNotFoundError``."""
    captions = tuple(tuple(json.loads(line)) for line in (folder / CLIPS_FILE).read_text().splitlines())
    latents: Array = np.load(folder / LATENTS_FILE, mmap_mode="r")
    return Latents(latents[: len(captions)], captions)


def draw_windows(
    rng: np.random.Generator, sources: Sequence[Latents], num_samples: int, num_frames: int, *, anywhere: bool = False
) -> Windows:
    """``Latents.draw`` from one of several folders whose clips are long enough, large ones more often.

    Raises ``ValueError`` where no clip is so long.
    """
    fitting = [source for source in sources if source.latents_MTCYX.shape[1] >= num_frames]
    require(bool(fitting), f"no clip holds {num_frames} latent frames")
    weights = np.array([source.latents_MTCYX.shape[0] * source.latents_MTCYX.shape[1] for source in fitting])
    source = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
    return source.draw(rng, num_samples, num_frames, anywhere=anywhere)


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    network = load_autoencoder(args.autoencoder, device)
    args.folder.mkdir(parents=True, exist_ok=True)
    latents = _storage(args.folder / LATENTS_FILE, args.clips, args.length)
    captions_file = args.folder / CLIPS_FILE
    done = len(captions_file.read_text().splitlines()) if captions_file.exists() else 0
    add_line(args.folder, start_line(done, args.seed))
    started_at, before = time.monotonic(), done
    while done < args.clips:
        indices = range(done, min(done + CLIPS_AT_ONCE, args.clips))
        encoded, captions = make_clips(network, args.split, args.seed, indices, args.length, args.motions, args.things)
        latents[indices.start : indices.stop] = encoded
        with captions_file.open("a") as file:
            file.write("".join(json.dumps(sentences) + "\n" for sentences in captions))
        done = indices.stop
        each_s = (time.monotonic() - started_at) / (done - before)
        sys.stdout.write(f"{done} of {args.clips} clips, {each_s:.3f} s each\n")
    add_line(args.folder, {"step": done, "seconds": round(time.monotonic() - started_at, 1)})


@torch.inference_mode()
def make_clips(
    network: Autoencoder,
    split: Split,
    seed: int,
    indices: Sequence[int],
    length: int,
    motions: Collection[Motion] = tuple(Motion),
    nums_things: Collection[int] = (1, 2),
) -> tuple[Array, list[list[str]]]:
    """Encode the clips of these indices, scenes of so many things that show one of the motions: float16
    [M, T, C, Y, X], and the captions of each."""
    device = next(network.parameters()).device
    latents, captions = [], []
    for index in indices:
        rng = np.random.default_rng((seed, index))
        scene = _draw(rng, split, motions, nums_things)
        pixels = to_pixels(render(scene, 0, STRIDE * length, SIZE_PX)[None]).to(device)
        latents.append(network.encoder(pixels).to(torch.float16).cpu())
        captions.append([describe(scene, rng) for _ in range(NUM_CAPTIONS)])
    return torch.cat(latents).numpy(), captions


def _draw(rng: np.random.Generator, split: Split, motions: Collection[Motion], nums_things: Collection[int]) -> Scene:
    """A random scene of so many things, one of which does one of the motions."""
    while True:
        scene = draw_scene(rng, split)
        if len(scene.things) in nums_things and any(thing.motion in motions for thing in scene.things):
            return scene


def _storage(file: Path, num_clips: int, length: int) -> Array:
    """The array of the file, new or of just this shape. Raises ``ValueError``."""
    side = SIZE_PX // LATENT_STRIDE_PX
    shape = (num_clips, length, DECODER.latent_channels, side, side)
    if not file.exists():
        return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    found: Array = np.load(file, mmap_mode="r+")
    if found.shape != shape:
        raise ValueError(f"{file} holds {list(found.shape)}, asked for {list(shape)}: use another folder")
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/training/latents"), help="%(default)s")
    parser.add_argument("--autoencoder", type=Path, default=Path("build/training/autoencoder"), help="%(default)s")
    parser.add_argument("--split", type=Split, default=Split.TRAIN, choices=list(Split), help="%(default)s")
    only = "scenes that show one of these (all)"
    parser.add_argument("--motions", type=Motion, choices=list(Motion), nargs="+", default=list(Motion), help=only)
    num = "scenes of so many things (1 2)"
    parser.add_argument("--things", type=int, choices=(1, 2), nargs="+", default=[1, 2], help=num)
    parser.add_argument("--clips", type=int, default=4000, help="%(default)s")
    parser.add_argument("--length", type=int, default=21, help="latent frames of a clip (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="%(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="%(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
