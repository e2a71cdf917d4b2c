"""Turns the teacher into a causal student of few stages, before distillation.

    python -m training.ode_init --pairs ode
    python -m training.ode_init --pairs data --steps 1500 --context next current clean

The student denoises block b at a stage's level with the context that HiAR gives it, and regresses the clean block
(spec section 6.5). ``--pairs ode`` takes inputs, contexts and clean blocks from the teacher's trajectories
(``training.trajectories``, all chords). ``--pairs data`` takes encoded clips and fresh noise at each level: no
teacher's solution is learned, but nothing has to be sampled from it. Several ``--context`` give a student that
distillations with different contexts can start from alike: each sample draws one. Several ``--blocks`` mix lengths: one
block at a time teaches how videos begin, long samples how they go on. A teacher that never learned what some words mean
has an encoder that tells them apart badly: ``--train-text`` trains it on, and a teacher that starts from this student
(``training.teacher --start ... --keep-text``) can judge it in distillation.

Letters: B samples, N blocks, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.oracle import re_noise
from engine.schedule import Level, noise_levels
from training.autoencoder import load_autoencoder
from training.dmd import per_sample
from training.forward import text_rows
from training.joined import denoise_joined
from training.latents import FRAMES_PER_BLOCK, draw_windows, open_latents
from training.networks import ROLLOUT, TABLES, TEXT_LEN, TRAINED_BLOCKS, TextToFlow, student_of
from training.rollout import Context, Plan
from training.run import Average, HalfCopies, Optimizers, Run, add_arguments, precision, rate_factor, set_up
from training.student import draw_sheet, keep_tokenizer, load_network, sheet_plan
from training.tokenizer import token_ids
from training.trajectories import open_trajectories

AVERAGE_DECAY = 0.995
LOG_EVERY = 10


class Pairs(StrEnum):
    """Where inputs and clean blocks come from."""

    ODE = "ode"
    DATA = "data"


@dataclass(frozen=True)
class Sample:
    """What one sample of a batch is trained on. All [N, F, C, Y, X]."""

    stage: int
    context_level: int
    """Index of the level that the cache pass reads."""
    inputs: Tensor
    contexts: Tensor
    clean: Tensor


Source = Callable[[np.random.Generator, int, int], tuple[list[Sample], list[str]]]
"""Random samples and their captions: so many, of so many blocks, at random stages."""


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    teacher, tokenizer = load_network(args.teacher, device)
    network = student_of(teacher).to(device).eval().requires_grad_(False)
    keep_tokenizer(args.teacher, args.folder)
    trained: nn.Module = network if args.train_text else network.transformer
    trained.requires_grad_(True)
    copies = HalfCopies(network, args.threads if device.type == "cpu" else 1)
    average, optimizers = Average(network, AVERAGE_DECAY), Optimizers(trained, args.rate, tables=TABLES)
    run = Run(args.folder, {"network": network, "average": average, "optimizers": optimizers}, args.seed)
    draw = source(args.pairs, args.latents, args.trajectories, args.context)
    autoencoder = load_autoencoder(args.autoencoder, device)
    plan = sheet_plan(Plan(rollout=ROLLOUT, num_blocks=1, exit_stage=0, context=args.context[0]), args.sheet_seconds)
    for step in run.steps(args.steps):
        samples, captions = draw_batch(run.rng(), draw, args.batch, args.blocks)
        tokens = token_ids(tokenizer, captions, TEXT_LEN)
        loss = copies.backward(regression_loss, *(part.to(device) for part in (*as_batch(samples), tokens)))
        gradient = optimizers.step(rate_factor(step, args.steps))
        average.update(network)
        if step % LOG_EVERY == 0:
            run.log(loss=loss, gradient=gradient)
        if (step + 1) % args.sheet_every == 0 or step + 1 == args.steps:
            assert isinstance(average.module, TextToFlow)
            draw_sheet(average.module, autoencoder, tokenizer, plan, args.folder / f"videos-{step + 1:06}.png")


def draw_batch(
    rng: np.random.Generator, draw: Source, num_samples: int, lengths: Sequence[int]
) -> tuple[list[Sample], list[str]]:
    """Samples of one of the lengths: ``num_samples`` of the longest, of shorter ones as many as cost the same."""
    num_blocks = lengths[int(rng.integers(len(lengths)))]
    return draw(rng, num_samples * max(lengths) // num_blocks, num_blocks)


def source(pairs: Pairs, latents: Sequence[Path], trajectories: Path, contexts: Sequence[Context]) -> Source:
    """Where samples come from. Raises ``FileNotFoundError`` or ``ValueError``."""
    if pairs is Pairs.DATA:
        clips = [open_latents(folder) for folder in latents]

        def from_data(rng: np.random.Generator, num: int, num_blocks: int) -> tuple[list[Sample], list[str]]:
            windows = draw_windows(rng, clips, num, num_blocks * FRAMES_PER_BLOCK)
            samples = [data_sample(one, *_draw(rng, contexts), rng) for one in windows.latents_BNFCYX]
            return samples, windows.captions

        return from_data
    paths = open_trajectories(trajectories, ROLLOUT.num_stages)

    def from_paths(rng: np.random.Generator, num: int, num_blocks: int) -> tuple[list[Sample], list[str]]:
        points, _, captions = paths.draw(rng, num)
        windows = [[point[n, :num_blocks] for point in points] for n in range(num)]
        return [ode_sample(window, *_draw(rng, contexts)) for window in windows], captions

    return from_paths


def _draw(rng: np.random.Generator, contexts: Sequence[Context]) -> tuple[int, int]:
    """A random stage, and the index of the level of its context."""
    stage = int(rng.integers(ROLLOUT.num_stages))
    return stage, context_level(stage, contexts[int(rng.integers(len(contexts)))])


def context_level(stage: int, context: Context) -> int:
    """The index of the level that a stage's cache pass reads."""
    return {Context.NEXT: stage + 1, Context.CURRENT: stage, Context.CLEAN: ROLLOUT.num_stages}[context]


def data_sample(clean_NFCYX: Tensor, stage: int, read: int, rng: np.random.Generator) -> Sample:
    """A clip at a stage, with fresh noise on the inputs and, where they have another level, on the contexts."""
    levels = noise_levels(ROLLOUT)
    inputs = _at(clean_NFCYX, levels[stage], rng)
    contexts = inputs if read == stage else _at(clean_NFCYX, levels[read], rng)
    return Sample(stage, read, inputs, contexts, clean_NFCYX)


def ode_sample(points: Sequence[Tensor], stage: int, read: int) -> Sample:
    """Points of one trajectory, one a level."""
    return Sample(stage, read, points[stage], points[read], points[-1])


def as_batch(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Inputs, contexts and clean blocks of samples [B, 3, N, F, C, Y, X], and as numbers [B, 3] the timestep and the
    sigma of their inputs and the timestep of their contexts."""
    levels = noise_levels(ROLLOUT)
    latents = torch.stack([torch.stack([one.inputs, one.contexts, one.clean]) for one in samples])
    numbers = [
        (levels[one.stage].timestep, levels[one.stage].sigma, levels[one.context_level].timestep) for one in samples
    ]
    return latents, torch.tensor(numbers)


def regression_loss(network: nn.Module, latents_B3NFCYX: Tensor, numbers_B3: Tensor, tokens_BT: Tensor) -> Tensor:
    """Mean squared error of the clean blocks that a ``TextToFlow`` predicts."""
    assert isinstance(network, TextToFlow)
    model = network.transformer
    inputs, contexts, clean = latents_B3NFCYX.unbind(1)
    timesteps, sigma, context_timesteps = numbers_B3.unbind(1)
    with precision(model.device):
        text = text_rows(model, network.encoder, tokens_BT)
        flow = denoise_joined(model, inputs, contexts, timesteps, context_timesteps, text, ROLLOUT.window_blocks)
    return (inputs - per_sample(sigma, inputs) * flow.float() - clean).square().mean()


def _at(clean: Tensor, level: Level, rng: np.random.Generator) -> Tensor:
    return re_noise(clean, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32)), level)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "ode_init", steps=1500)
    base = Path("build/training")
    parser.add_argument("--teacher", type=Path, default=base / "teacher", help="run folder (%(default)s)")
    parser.add_argument("--autoencoder", type=Path, default=base / "autoencoder", help="run folder (%(default)s)")
    parser.add_argument("--pairs", type=Pairs, choices=list(Pairs), default=Pairs.DATA, help="%(default)s")
    parser.add_argument(
        "--latents", type=Path, nargs="+", default=[base / "latents"], help="folders of clips, for data"
    )
    parser.add_argument("--trajectories", type=Path, default=base / "trajectories", help="for ode (%(default)s)")
    parser.add_argument("--context", type=Context, choices=list(Context), nargs="+", default=[Context.NEXT])
    lengths = "of samples; a step draws one of several"
    parser.add_argument("--blocks", type=int, nargs="+", default=[TRAINED_BLOCKS], help=lengths)
    parser.add_argument("--batch", type=int, default=4, help="samples of a step of the longest (%(default)s)")
    parser.add_argument("--train-text", action="store_true", help="train the text encoder too")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate (%(default)s)")
    parser.add_argument("--sheet-every", type=int, default=500, help="steps between contact sheets (%(default)s)")
    parser.add_argument("--sheet-seconds", type=float, default=20.0, help="length of their videos (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
