"""Turns the teacher into a causal student of few stages, before distillation.

    python -m training.ode_init --pairs ode --teacher build/training/teacher
    python -m training.ode_init --pairs data --steps 1500 --context next next clean --blocks 1 1 4 12

The student denoises block b at a stage's level with the context that HiAR gives it, and regresses the flow to the clean
block (spec section 6.5); its cache passes predict at their own level too, which costs nothing more. ``--pairs ode``
takes inputs, contexts and clean blocks from the teacher's trajectories (``training.trajectories``, all chords).
``--pairs data`` takes encoded clips and fresh noise at each level: no teacher's solution is learned, but nothing has to
be sampled from it. With ``--own-share`` that share of the steps reads what the student itself predicted one stage
earlier instead, in inputs and in contexts, so that it learns to go on from its own pictures and not from the world's
alone. Several ``--context`` give a student that distillations with different contexts can start from alike: each sample
draws one. Several ``--blocks`` mix lengths: one block at a time teaches how videos begin, long samples how they go on.
The text encoder learns with the rest.

Letters: B samples, N blocks, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.law.schedule import Level, noise_levels
from engine.law.step import re_noise
from engine.model.dit import CausalWan
from engine.model.segments import TextRows
from engine.model.text import load_tokenizer
from engine.model.tiny_vae import RGB
from training.autoencoder import load_autoencoder
from training.dmd import per_sample
from training.forward import text_rows
from training.joined import denoise_joined
from training.latents import FRAMES_PER_BLOCK, draw_windows, open_latents
from training.networks import ROLLOUT, TABLES, TEXT_LEN, TRAINED_BLOCKS, TextToFlow
from training.rollout import Context, Plan
from training.run import Average, Copies, Optimizers, Run, add_arguments, precision, rate_factor, set_up
from training.student import TOKENIZER_FILE, draw_sheet, keep_tokenizer, load_network, sheet_plan
from training.tokenizer import save_tokenizer, token_ids, world_tokenizer
from training.trajectories import open_trajectories

AVERAGE_DECAY = 0.995
LOG_EVERY = 10
DETAIL_WEIGHT = 3.0
MIN_SIGMA = 0.01
"""Stands in for the level without noise, whose flow counts for nothing."""


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
    before: tuple[Tensor, Tensor] | None = None
    """Inputs and contexts of the stage before, from whose predictions those of this one are made; none: as given."""


Source = Callable[[np.random.Generator, int, int], tuple[list[Sample], list[str]]]
"""Random samples and their captions: so many, of so many blocks, at random stages."""


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    tokenizer = _tokenizer(args.folder, args.teacher, args.seed)
    network = _student(tokenizer, args.teacher).to(device).eval()
    copies = Copies(network, args.threads if device.type == "cpu" else 1)
    average, optimizers = Average(network, AVERAGE_DECAY), Optimizers(network, args.rate, tables=TABLES)
    run = Run(args.folder, {"network": network, "average": average, "optimizers": optimizers}, args.seed)
    draw = source(args.pairs, args.latents, args.trajectories, args.context, args.own_share)
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


def source(
    pairs: Pairs, latents: Sequence[Path], trajectories: Path, contexts: Sequence[Context], own_share: float = 0.0
) -> Source:
    """Where samples come from. Raises ``FileNotFoundError`` or ``ValueError``."""
    if pairs is Pairs.DATA:
        clips = [open_latents(folder) for folder in latents]

        def from_data(rng: np.random.Generator, num: int, num_blocks: int) -> tuple[list[Sample], list[str]]:
            own = rng.random() < own_share
            windows = draw_windows(rng, clips, num, num_blocks * FRAMES_PER_BLOCK)
            samples = [data_sample(one, *_draw(rng, contexts), rng, own=own) for one in windows.latents_BNFCYX]
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


def data_sample(clean_NFCYX: Tensor, stage: int, read: int, rng: np.random.Generator, *, own: bool = False) -> Sample:
    """A clip at a stage, with fresh noise on the inputs and, where they have another level, on the contexts."""
    levels = noise_levels(ROLLOUT)
    inputs = _at(clean_NFCYX, levels[stage], rng)
    contexts = inputs if read == stage else _at(clean_NFCYX, levels[read], rng)
    before = None
    if own:
        earlier = max(stage - 1, 0)
        before = _at(clean_NFCYX, levels[earlier], rng), _at(clean_NFCYX, levels[earlier + 1], rng)
    return Sample(stage, read, inputs, contexts, clean_NFCYX, before)


def ode_sample(points: Sequence[Tensor], stage: int, read: int) -> Sample:
    """Points of one trajectory, one a level."""
    return Sample(stage, read, points[stage], points[read], points[-1])


def as_batch(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Inputs, contexts and clean blocks of samples, and with ``before`` its two [B, 3 or 5, N, F, C, Y, X], and the
    stage and the level of the contexts of each [B, 2]."""
    latents = [torch.stack([one.inputs, one.contexts, one.clean, *(one.before or ())]) for one in samples]
    return torch.stack(latents), torch.tensor([(one.stage, one.context_level) for one in samples])


def regression_loss(network: nn.Module, latents_BVNFCYX: Tensor, places_B2: Tensor, tokens_BT: Tensor) -> Tensor:
    """Mean squared error of the flows that a ``TextToFlow`` predicts, of denoise passes and of cache passes that read
    noise. The batch is what ``as_batch`` makes."""
    assert isinstance(network, TextToFlow)
    model = network.transformer
    inputs, contexts, clean, *before = latents_BVNFCYX.unbind(1)
    stages, reads = places_B2.unbind(1)
    with precision(model.device):
        text = text_rows(model, network.encoder, tokens_BT)
        if before:
            inputs, contexts = _own(model, (inputs, contexts, clean), (before[0], before[1]), stages, reads, text)
        flows = _denoise(model, inputs, contexts, stages, reads, text)
    noisy = torch.stack([contexts, inputs], dim=1)
    sigmas = torch.stack([_sigmas(reads, clean), _sigmas(stages, clean)], dim=1)
    wanted = (noisy - clean[:, None]) / sigmas.clamp(min=MIN_SIGMA)
    errors = (flows.float() - wanted).square() * channel_weights(clean.shape[-3]).to(clean.device)[:, None, None]
    errors_B2 = errors.flatten(2).mean(2)
    is_noisy_B2 = torch.stack([reads < ROLLOUT.num_stages, stages < ROLLOUT.num_stages], dim=1)
    return (errors_B2 * is_noisy_B2).mean()


def channel_weights(num_channels: int) -> Tensor:
    """What errors of each latent channel count [C]: those after the mean colours hold edges, points and changes in
    time, a small part of all that varies and much of what is seen."""
    return torch.tensor([1.0] * RGB + [DETAIL_WEIGHT] * (num_channels - RGB))


@torch.no_grad()
def _own(
    model: CausalWan,
    given: tuple[Tensor, Tensor, Tensor],
    before: tuple[Tensor, Tensor],
    stages_B: Tensor,
    reads_B: Tensor,
    text: TextRows,
) -> tuple[Tensor, Tensor]:
    """Inputs and contexts with the clean blocks in them replaced by what the stage before predicts.

    A block that leaves the first stage is a prediction of the denoise pass; later ones are taken from the cache passes,
    which have just read what the denoise pass of the stage in question would.
    """
    inputs, contexts, clean = given
    earlier_B = (stages_B - 1).clamp(min=0)
    flows = _denoise(model, *before, earlier_B, earlier_B + 1, text).float()
    of_cache, of_denoise = (
        read - _sigmas(level, clean) * flow
        for read, level, flow in zip((before[1], before[0]), (earlier_B + 1, earlier_B), flows.unbind(1), strict=True)
    )
    is_first = (stages_B == 0).view(-1, *[1] * (clean.ndim - 1))
    seen = torch.where(is_first, of_denoise, of_cache)
    inputs = inputs + (1 - _sigmas(stages_B, clean)) * (of_denoise - clean)
    contexts = contexts + (1 - _sigmas(reads_B, clean)) * (seen - clean)
    return inputs, contexts


def _denoise(
    model: CausalWan, inputs: Tensor, contexts: Tensor, stages_B: Tensor, reads_B: Tensor, text: TextRows
) -> Tensor:
    timesteps = torch.tensor([level.timestep for level in noise_levels(ROLLOUT)], device=inputs.device)
    times = timesteps[stages_B], timesteps[reads_B]
    return denoise_joined(model, inputs, contexts, *times, text, ROLLOUT.window_blocks)


def _sigmas(levels_B: Tensor, like: Tensor) -> Tensor:
    """The noise of levels, with as many axes as ``like``."""
    sigmas = torch.tensor([level.sigma for level in noise_levels(ROLLOUT)], device=like.device)
    return per_sample(sigmas[levels_B], like)


def _at(clean: Tensor, level: Level, rng: np.random.Generator) -> Tensor:
    return re_noise(clean, torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32)), level)


def _tokenizer(folder: Path, teacher: Path | None, seed: int) -> Tokenizer:
    """The teacher's, or a new one."""
    if teacher is not None:
        keep_tokenizer(teacher, folder)
    elif not (folder / TOKENIZER_FILE).exists():
        save_tokenizer(world_tokenizer(seed), folder / TOKENIZER_FILE)
    return load_tokenizer(folder / TOKENIZER_FILE)


def _student(tokenizer: Tokenizer, teacher: Path | None) -> TextToFlow:
    """With the teacher's weights, or fresh."""
    if teacher is None:
        return TextToFlow(tokenizer.get_vocab_size())
    return load_network(teacher, torch.device("cpu"))[0].requires_grad_(True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "ode_init", steps=1500)
    base = Path("build/training")
    parser.add_argument("--teacher", type=Path, help="run folder of a teacher or student to start from (fresh weights)")
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
    parser.add_argument("--own-share", type=float, default=0.0, help="of steps on its own predictions (%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (%(default)s)")
    parser.add_argument("--sheet-every", type=int, default=500, help="steps between contact sheets (%(default)s)")
    parser.add_argument("--sheet-seconds", type=float, default=20.0, help="length of their videos (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
