"""Videos from the teacher: Euler steps along the flow, guided by the prompt. Knows no pixels.

Letters: B samples, N blocks, F latent frames of a block, C latent channels, Y and X latent height and width,
T text tokens.
"""

import torch
from torch import Tensor

from engine.config import LATENT_STRIDE_PX
from engine.model.text import END_OF_TEXT
from training.autoencoder import SIZE_PX
from training.forward import Mask, flow, text_rows
from training.latents import FRAMES_PER_BLOCK
from training.networks import TRANSFORMER, TextToFlow
from training.run import precision
from training.tokenizer import SPECIAL_TOKENS

PROMPTS = (
    "A red circle drifts to the right over a night sky.",
    "A large blue square spins clockwise in place on sand.",
    "A yellow star drifts quickly up over a pale sky.",
    "A white circle bounces around on sand.",
    "A green triangle orbits clockwise around the middle over a pale sky.",
    "A large white square grows and shrinks over a night sky.",
    "A circle changes colour from red to blue and back on sand.",
    "A small yellow square drifts up while a blue circle drifts down over a night sky.",
)
"""Prompts whose samples are looked at while training goes on."""
STEPS = 16
GUIDANCE = 3.0
SHIFT = 3.0


def levels(num_steps: int, shift: float) -> Tensor:
    """The noise levels of ``num_steps`` Euler steps, from 1 to 0: [num_steps + 1]."""
    u = torch.linspace(1, 0, num_steps + 1)
    return shift * u / (1 + (shift - 1) * u)


@torch.no_grad()
def sample(
    network: TextToFlow,
    tokens_BT: Tensor,
    num_blocks: int,
    seed: int,
    *,
    num_steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Clean latents [B, N, F, C, Y, X] of each prompt, all blocks at once."""
    device = network.transformer.device
    side = SIZE_PX // LATENT_STRIDE_PX
    shape = (len(tokens_BT), num_blocks, FRAMES_PER_BLOCK, TRANSFORMER.in_dim, side, side)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    return integrate(network, x, tokens_BT, levels(num_steps, SHIFT), guidance)[-1]


@torch.no_grad()
def integrate(
    network: TextToFlow, noise_BNFCYX: Tensor, tokens_BT: Tensor, sigmas: Tensor, guidance: float
) -> list[Tensor]:
    """Follow the flow through the noise levels; returns the latents at each of them, the noise first.

    With a guidance of 1 nothing is asked of the empty prompt.
    """
    device, num_blocks = noise_BNFCYX.device, noise_BNFCYX.shape[1]
    untold_tokens = torch.zeros_like(tokens_BT)
    untold_tokens[:, 0] = SPECIAL_TOKENS.index(END_OF_TEXT)
    asked = [tokens_BT] if guidance == 1 else [tokens_BT, untold_tokens]
    path = [noise_BNFCYX]
    with precision(device):
        text = text_rows(network.transformer, network.encoder, torch.cat(asked).to(device))
        for now, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            timesteps = torch.full((len(asked) * len(tokens_BT), num_blocks), 1000 * now, device=device)
            noised = torch.cat([path[-1]] * len(asked))
            told, *untold = (
                flow(network.transformer, noised, timesteps, text, Mask.BIDIRECTIONAL).float().chunk(len(asked))
            )
            guided = untold[0] + guidance * (told - untold[0]) if untold else told
            path.append(path[-1] + (after - now) * guided)
    return path
