"""What the steps from teacher to student share: reading a run's network, precision, and looking at roll-outs.

Every run from the teacher on keeps one ``TextToFlow`` under the same names, so each step starts from the folder of the
one before it. Knows no loss.

Letters: B samples, T latent frames or text tokens, F latent frames of a block, C latent channels, Y and X latent
height and width.
"""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, TransformerConfig
from engine.law.schedule import blocks_for_frames
from engine.model.text import load_tokenizer
from engine.stage.noise import KeyedNoise
from training.autoencoder import SIZE_PX, Autoencoder
from training.forward import text_rows
from training.networks import ROLLOUT, TEXT_LEN, VIDEO, TextToFlow
from training.pictures import save_rows
from training.rollout import Plan, roll_out, sample_noise
from training.run import latest_part, precision
from training.sampling import PROMPTS
from training.tokenizer import token_ids

TOKENIZER_FILE = "tokenizer.json"
SHEET_MOMENTS = 10
SHEET_SEED = 1


def load_network(folder: Path, device: torch.device) -> tuple[TextToFlow, Tokenizer]:
    """The averaged network of a run, frozen, and its tokenizer. Raises ``FileNotFoundError`` or ``StartError``."""
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    weights = latest_part(folder, "average", prefix="module.")
    network = TextToFlow(tokenizer.get_vocab_size())
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False), tokenizer


def keep_tokenizer(source: Path, folder: Path) -> None:
    """Put the tokenizer of the run ``source`` into ``folder``, so that a run's folder is all a later step needs."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / TOKENIZER_FILE, folder / TOKENIZER_FILE)


def block_shape(config: TransformerConfig) -> tuple[int, int, int, int]:
    """F, C, Y, X of a block's latents."""
    side = SIZE_PX // LATENT_STRIDE_PX
    return ROLLOUT.latent_frames_per_block, config.in_dim, side, side


@torch.no_grad()
def make_videos(network: TextToFlow, tokens_BT: Tensor, plan: Plan, seed: int) -> Tensor:
    """Roll-outs from keyed noise, all with one seed: latents [B, T, C, Y, X]."""
    model = network.transformer
    noise = sample_noise(KeyedNoise(model.device), [seed] * len(tokens_BT), block_shape(model.config))
    with precision(model.device):
        text = text_rows(model, network.encoder, tokens_BT.to(model.device))
        return roll_out(model, plan, noise, text, keeps_pages=False).x0_BNFCYX.flatten(1, 2)


def sheet_plan(plan: Plan, seconds: float) -> Plan:
    """All stages of ``plan``, for a video of so many seconds."""
    num_blocks = blocks_for_frames(plan.rollout, round(seconds * VIDEO.fps))
    last = plan.rollout.num_stages - 1
    return Plan(rollout=plan.rollout, num_blocks=num_blocks, exit_stage=last, context=plan.context)


def draw_sheet(network: TextToFlow, autoencoder: Autoencoder, tokenizer: Tokenizer, plan: Plan, file: Path) -> None:
    """Videos of the fixed prompts as a contact sheet: moments from the first frame to the last."""
    latents = make_videos(network, token_ids(tokenizer, PROMPTS, TEXT_LEN), plan, SHEET_SEED)
    rows = []
    for prompt, latents_TCYX in zip(PROMPTS, latents, strict=True):
        pixels = _decode(autoencoder, latents_TCYX, plan.rollout.latent_frames_per_block)
        moments = torch.linspace(0, len(pixels) - 1, SHEET_MOMENTS).round().long()
        rows.append((prompt, pixels[moments]))
    save_rows(file, rows)


@torch.no_grad()
def _decode(autoencoder: Autoencoder, latents_TCYX: Tensor, at_once: int) -> Tensor:
    """RGB in [0, 1] on the CPU, a block at a time as the server decodes, so that memory does not grow with length."""
    parts, state = [], None
    for latents in latents_TCYX.split(at_once):
        pixels, state = autoencoder.decoder.decode(latents, state)
        parts.append(pixels.cpu())
    return torch.cat(parts)
