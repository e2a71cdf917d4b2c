"""Follows the teacher from noise to video and keeps where it stood at the student's noise levels.

    python -m training.trajectories --chords 4 --count 400
    python -m training.trajectories --chords 1 --count 1600 --folder build/training/first-chords

The forward-KL regulariser needs the first chord or few (spec section 6.4); initialisation by ODE pairs needs all.
Trajectory i is a pure function of the seed and i. A stopped command goes on where it was. The folder holds
``chords.npy`` (float16, memory-mapped: the mean flow from each level to the next, whose rounding nothing amplifies),
``captions.jsonl`` and ``trajectories.json``; the noise comes again from its key.

Letters: M trajectories, B samples, V chords, N blocks, F latent frames of a block, C latent channels, Y and X latent
height and width, T text tokens.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.config import RolloutConfig, TransformerConfig, require
from engine.law.schedule import NUM_TRAIN_TIMESTEPS, noise_levels
from engine.stage.noise import KeyedNoise
from training.captions import describe
from training.networks import ROLLOUT, TEXT_LEN, WINDOW_BLOCKS, TextToFlow
from training.run import set_up
from training.sampling import GUIDANCE, integrate
from training.student import block_shape, load_network
from training.tokenizer import token_ids
from training.world import draw_scene

CHORDS_FILE = "chords.npy"
CAPTIONS_FILE = "captions.jsonl"
SETTINGS_FILE = "trajectories.json"

Array = np.memmap[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class Settings:
    """What the trajectories of a folder depend on, the teacher apart."""

    seed: int
    count: int
    num_chords: int
    steps_per_chord: int
    guidance: float
    num_blocks: int
    block_shape: tuple[int, int, int, int]
    """F, C, Y, X."""
    sigmas: tuple[float, ...]
    """Levels at which the teacher stood; chord v goes from level v to level v + 1."""


@dataclass(frozen=True)
class Trajectories:
    """A folder's whole trajectories."""

    settings: Settings
    chords_MVNFCYX: Array
    """Room for all of them; those with a caption are there."""
    captions: tuple[str, ...]

    def draw(self, rng: np.random.Generator, num_samples: int) -> tuple[list[Tensor], Tensor, list[str]]:
        """Random trajectories: the points at each level [B, N, F, C, Y, X], the chords [B, V, N, F, C, Y, X], captions.

        All in float32 on the CPU.
        """
        picked = [int(index) for index in rng.integers(len(self.captions), size=num_samples)]
        chords = torch.from_numpy(np.stack([self.chords_MVNFCYX[index] for index in picked])).float()
        points = [starting_noise(self.settings, picked)]
        for chord, (now, after) in enumerate(pairwise(self.settings.sigmas)):
            points.append(points[-1] + (after - now) * chords[:, chord])
        return points, chords, [self.captions[index] for index in picked]


def open_trajectories(folder: Path, num_chords: int) -> Trajectories:
    """The whole trajectories of a folder. Raises ``FileNotFoundError``, or ``ValueError`` on too few chords."""
    settings = _read_settings(folder)
    require(settings.num_chords >= num_chords, f"{folder} holds {settings.num_chords} chords, {num_chords} are needed")
    captions = tuple(json.loads(line) for line in (folder / CAPTIONS_FILE).read_text().splitlines())
    chords: Array = np.load(folder / CHORDS_FILE, mmap_mode="r")
    return Trajectories(settings, chords, captions)


def chord_levels(rollout: RolloutConfig, chord: int, num_steps: int) -> Tensor:
    """The noise levels of the Euler steps from one of the student's levels to the next, both exact. Float64."""
    nominal = [*rollout.denoising_steps, 0]
    u = torch.linspace(nominal[chord], nominal[chord + 1], num_steps + 1, dtype=torch.float64) / NUM_TRAIN_TIMESTEPS
    levels = rollout.timestep_shift * u / (1 + (rollout.timestep_shift - 1) * u)
    student = noise_levels(rollout)
    levels[0], levels[-1] = student[chord].sigma, student[chord + 1].sigma
    return levels


def starting_noise(settings: Settings, indices: Sequence[int]) -> Tensor:
    """The noise that trajectories start from [B, N, F, C, Y, X], on the CPU."""
    noise, blocks = KeyedNoise(torch.device("cpu")), range(settings.num_blocks)
    seeds = [(settings.seed << 32) + index for index in indices]
    return torch.stack([torch.stack([noise(seed, b, 0, settings.block_shape) for b in blocks]) for seed in seeds])


def follow(network: TextToFlow, rollout: RolloutConfig, settings: Settings, noise: Tensor, tokens_BT: Tensor) -> Tensor:
    """Chords of the guided teacher from ``noise`` [B, N, F, C, Y, X]: [B, V, N, F, C, Y, X], float32."""
    x, chords = noise, []
    for chord in range(settings.num_chords):
        levels = chord_levels(rollout, chord, settings.steps_per_chord)
        end = integrate(network, x, tokens_BT, levels, settings.guidance)[-1]
        chords.append((end.double() - x.double()) / (levels[-1] - levels[0]).item())
        x = end
    return torch.stack(chords, dim=1).float()


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    network, tokenizer = load_network(args.teacher, device)
    settings = _settings(args, network.transformer.config)
    chords, num_done = _storage(args.folder, settings)
    started_at, before = time.monotonic(), num_done
    while num_done < settings.count:
        indices = range(num_done, min(num_done + args.at_once, settings.count))
        captions = [caption_of(settings.seed, index) for index in indices]
        tokens = token_ids(tokenizer, captions, TEXT_LEN).to(device)
        made = follow(network, ROLLOUT, settings, starting_noise(settings, indices).to(device), tokens)
        chords[indices.start : indices.stop] = made.half().cpu().numpy()
        chords.flush()
        with (args.folder / CAPTIONS_FILE).open("a") as file:
            file.write("".join(json.dumps(caption) + "\n" for caption in captions))
        num_done = indices.stop
        each_s = (time.monotonic() - started_at) / (num_done - before)
        sys.stdout.write(f"{num_done} of {settings.count} trajectories, {each_s:.2f} s each\n")


def caption_of(seed: int, index: int) -> str:
    """The prompt of a trajectory."""
    rng = np.random.default_rng((seed, index))
    return describe(draw_scene(rng), rng)


def _settings(args: argparse.Namespace, config: TransformerConfig) -> Settings:
    require(1 <= args.chords <= ROLLOUT.num_stages, f"--chords {args.chords} leaves 1..{ROLLOUT.num_stages}")
    return Settings(
        seed=args.seed,
        count=args.count,
        num_chords=args.chords,
        steps_per_chord=args.steps_per_chord,
        guidance=args.guidance,
        num_blocks=args.blocks,
        block_shape=block_shape(config),
        sigmas=tuple(level.sigma for level in noise_levels(ROLLOUT)[: args.chords + 1]),
    )


def _storage(folder: Path, settings: Settings) -> tuple[Array, int]:
    """The array of the folder, new or made with the same settings, and how many are whole. Raises ``ValueError``."""
    folder.mkdir(parents=True, exist_ok=True)
    file, captions = folder / CHORDS_FILE, folder / CAPTIONS_FILE
    if (folder / SETTINGS_FILE).exists():
        require(_read_settings(folder) == settings, f"{folder} was begun with other settings: use another folder")
        found: Array = np.load(file, mmap_mode="r+")
        return found, len(captions.read_text().splitlines()) if captions.exists() else 0
    shape = (settings.count, settings.num_chords, settings.num_blocks, *settings.block_shape)
    made: Array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings)) + "\n")
    return made, 0


def _read_settings(folder: Path) -> Settings:
    content = json.loads((folder / SETTINGS_FILE).read_text())
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return Settings(**{**content, **lists})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path("build/training")
    parser.add_argument("--folder", type=Path, default=base / "trajectories", help="%(default)s")
    parser.add_argument("--teacher", type=Path, default=base / "teacher", help="run folder (%(default)s)")
    parser.add_argument("--count", type=int, default=400, help="trajectories (%(default)s)")
    parser.add_argument("--chords", type=int, default=ROLLOUT.num_stages, help="levels to go down (%(default)s)")
    parser.add_argument("--steps-per-chord", type=int, default=4, help="Euler steps (%(default)s)")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="%(default)s")
    parser.add_argument("--blocks", type=int, default=WINDOW_BLOCKS, help="length (%(default)s)")
    parser.add_argument("--at-once", type=int, default=4, help="trajectories of a batch (%(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="%(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="%(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
