"""Trains the bidirectional teacher and the text encoder by flow matching.

    python -m training.teacher
    python -m training.teacher --steps 20000 --curriculum 1:40,3:20,12:40
    python -m training.teacher --latents build/training/latents build/training/latents-long
    python -m training.teacher --start build/training/ode_init --keep-text --curriculum 3:20,12:80 --steps 400

The last goes on from another run's weights. A teacher that keeps the text encoder of a student knows the same words,
so it can judge that student in distillation.

A sample is a window of encoded clips at one noise level. Most steps see short windows, which cost least: single latent
frames teach what things look like, blocks how they move; the last see windows as long as the model ever attends to.
Each ``--latents`` folder serves the window lengths its clips allow.

Letters: B samples, N blocks, F latent frames of a block, C latent channels, Y and X latent height and width,
T text tokens.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from engine.model.text import load_tokenizer
from training.autoencoder import Autoencoder, load_autoencoder
from training.dmd import flow_error
from training.forward import Mask, flow, text_rows
from training.latents import FRAMES_PER_BLOCK, Latents, draw_windows, open_latents
from training.networks import TABLES, TEXT_LEN, TextToFlow
from training.pictures import save_rows
from training.run import (
    Average,
    Copies,
    Optimizers,
    Run,
    add_arguments,
    latest_part,
    precision,
    rate_factor,
    set_up,
)
from training.sampling import PROMPTS, sample
from training.tokenizer import save_tokenizer, token_ids, world_tokenizer

FRAMES_PER_STEP = 96
"""A step sees as many samples as make so many latent frames."""
CAPTION_DROPOUT = 0.1
SHIFT = 8.0
"""Of the noise levels that training draws. What the sentence says is decided at the highest; there it is hard."""
AVERAGE_DECAY = 0.999
CHECK_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
CHECK_SAMPLES = 32
LOG_EVERY = 20
TOKENIZER_FILE = "tokenizer.json"


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    tokenizer = _tokenizer(args.folder, args.seed, args.start)
    network = TextToFlow(tokenizer.get_vocab_size()).to(device)
    if args.start is not None:
        network.load_state_dict(latest_part(args.start, "average", prefix="module."))
    network.encoder.requires_grad_(not args.keep_text)
    copies = Copies(network, args.threads if device.type == "cpu" else 1)
    average = Average(network, AVERAGE_DECAY)
    optimizers = Optimizers(network.transformer if args.keep_text else network, args.rate, tables=TABLES)
    run = Run(args.folder, {"network": network, "average": average, "optimizers": optimizers}, args.seed)
    sources, held_out = [open_latents(folder) for folder in args.latents], open_latents(args.check_latents)
    autoencoder = load_autoencoder(args.autoencoder, device)
    for step in run.steps(args.steps):
        run.seed_torch()
        num_frames = window_frames(args.curriculum, step / args.steps)
        clean, blocks, tokens = (part.to(device) for part in draw_batch(run.rng(), sources, num_frames, tokenizer))
        loss = copies.backward(flow_loss, clean, *draw_noise(clean), tokens, blocks)
        gradient = optimizers.step(rate_factor(step, args.steps))
        assert isinstance(average.module, TextToFlow)
        average.update(network)
        if step % LOG_EVERY == 0:
            run.log(loss=loss, gradient=gradient, frames=num_frames)
        if (step + 1) % args.check_every == 0 or step + 1 == args.steps:
            run.log(**check(average.module, held_out, tokenizer, device))
            num_blocks = max(1, num_frames // FRAMES_PER_BLOCK)
            draw_samples(average.module, autoencoder, tokenizer, num_blocks, args.folder / f"samples-{step + 1:06}.png")


def draw_batch(
    rng: np.random.Generator, sources: Sequence[Latents], num_frames: int, tokenizer: Tokenizer
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean windows [B, N, F, C, Y, X], their first blocks [B], and tokens [B, T] of captions, some of them empty."""
    windows = draw_windows(rng, sources, max(1, FRAMES_PER_STEP // num_frames), num_frames, anywhere=True)
    kept = ["" if rng.random() < CAPTION_DROPOUT else caption for caption in windows.captions]
    return windows.latents_BNFCYX, windows.first_blocks_B, token_ids(tokenizer, kept, TEXT_LEN)


def draw_noise(clean_BNFCYX: Tensor) -> tuple[Tensor, Tensor]:
    """Noise of that shape, and a random noise level for each sample [B]."""
    u_B = torch.rand(len(clean_BNFCYX), device=clean_BNFCYX.device)
    return torch.randn_like(clean_BNFCYX), SHIFT * u_B / (1 + (SHIFT - 1) * u_B)


def flow_loss(
    network: nn.Module,
    clean_BNFCYX: Tensor,
    noise_BNFCYX: Tensor,
    sigma_B: Tensor,
    tokens_BT: Tensor,
    first_blocks_B: Tensor,
) -> Tensor:
    """Mean squared error of the flow that a ``TextToFlow`` predicts for windows that begin with those blocks."""
    assert isinstance(network, TextToFlow)
    sigma = sigma_B[:, None, None, None, None, None]
    noisy = (1 - sigma) * clean_BNFCYX + sigma * noise_BNFCYX
    timesteps_BN = (1000 * sigma_B)[:, None].expand(-1, clean_BNFCYX.shape[1])
    with precision(clean_BNFCYX.device):
        text = text_rows(network.transformer, network.encoder, tokens_BT)
        predicted = flow(network.transformer, noisy, timesteps_BN, text, Mask.BIDIRECTIONAL, first_block=first_blocks_B)
    return flow_error(predicted, noise_BNFCYX - clean_BNFCYX, sigma_B)


@torch.no_grad()
def check(network: TextToFlow, held_out: Latents, tokenizer: Tokenizer, device: torch.device) -> dict[str, float]:
    """The loss on held-out scenes at fixed noise levels, one block long; the same numbers are drawn every time."""
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    windows = held_out.draw(rng, CHECK_SAMPLES, FRAMES_PER_BLOCK)
    clean, blocks = windows.latents_BNFCYX.to(device), windows.first_blocks_B.to(device)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    tokens = token_ids(tokenizer, windows.captions, TEXT_LEN).to(device)
    losses = {}
    for level in CHECK_LEVELS:
        sigma_B = torch.full((CHECK_SAMPLES,), level, device=device)
        losses[f"check_{level}"] = flow_loss(network, clean, noise, sigma_B, tokens, blocks).item()
    return losses | {"check": sum(losses.values()) / len(losses)}


def draw_samples(
    network: TextToFlow, autoencoder: Autoencoder, tokenizer: Tokenizer, num_blocks: int, file: Path
) -> None:
    """Videos of the fixed prompts as a contact sheet: 8 moments each, from the second picture to the last."""
    tokens = token_ids(tokenizer, PROMPTS, TEXT_LEN)
    latents_BTCYX = sample(network, tokens, num_blocks, seed=4).flatten(1, 2)
    rows = []
    for prompt, latents in zip(PROMPTS, latents_BTCYX, strict=True):
        pixels, _ = autoencoder.decoder.decode(latents, None)
        moments = torch.linspace(0, len(pixels) - 1, 8).round().long()
        rows.append((prompt, pixels[moments].cpu()))
    save_rows(file, rows)


def window_frames(curriculum: Sequence[tuple[int, float]], progress: float) -> int:
    """Latent frames of a window at ``progress``, 0 to 1, through the run."""
    total, passed = sum(share for _, share in curriculum), 0.0
    for num_frames, share in curriculum:
        passed += share / total
        if progress < passed:
            return num_frames
    return curriculum[-1][0]


def _tokenizer(folder: Path, seed: int, start: Path | None) -> Tokenizer:
    """The run's tokenizer, made when the run begins; it knows the words of the run that this one starts from."""
    file = folder / TOKENIZER_FILE
    if start is not None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(start / TOKENIZER_FILE, file)
    elif not file.exists():
        save_tokenizer(world_tokenizer(seed), file)
    return load_tokenizer(file)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "teacher", steps=12_000)
    base = Path("build/training")
    parser.add_argument("--latents", type=Path, nargs="+", default=[base / "latents"], help="folders of clips")
    parser.add_argument("--check-latents", type=Path, default=base / "latents-check", help="%(default)s")
    parser.add_argument("--autoencoder", type=Path, default=base / "autoencoder", help="%(default)s")
    parser.add_argument("--start", type=Path, help="run folder of a teacher whose weights to start from")
    parser.add_argument("--keep-text", action="store_true", help="keep the text encoder that --start has")
    parser.add_argument(
        "--curriculum", type=curriculum, default="1:40,3:20,12:40", help="latent frames:percent of steps"
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (%(default)s)")
    parser.add_argument("--check-every", type=int, default=500, help="steps between checks and samples (%(default)s)")
    return parser.parse_args()


def curriculum(text: str) -> tuple[tuple[int, float], ...]:
    """Read "1:40,3:20,12:40"."""
    pairs = (part.split(":") for part in text.split(","))
    return tuple((int(num_frames), float(share)) for num_frames, share in pairs)


if __name__ == "__main__":
    main()
