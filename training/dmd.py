"""The losses of distillation, on tensors alone: distribution matching, the critic's, and the forward-KL regulariser.

A *score* here is a prediction of the clean sample from a noised one. Knows no network, no roll-out and no schedule of
stages. Source: spec sections 6.2 to 6.4.

Letters: B samples; what follows B is summed or averaged over alike.
"""

from typing import Protocol

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.functional import mse_loss

LOWEST_SIGMA, HIGHEST_SIGMA = 0.02, 0.98
NUM_TIMES = 1000
LEVEL_FLOW = 0.3


class Flow(Protocol):
    """A network's flow (noise minus clean) as a function of noised samples [B, ...] and their noise levels [B]."""

    def __call__(self, noised: Tensor, sigmas_B: Tensor, /) -> Tensor:
        """Same shape as ``noised``."""
        ...


def draw_sigmas(rng: Generator, num_samples: int, shift: float) -> Tensor:
    """Noise levels to compare distributions at: one of 1000 times, shifted, kept within [0.02, 0.98]. [B], float32."""
    u = rng.integers(NUM_TIMES, size=num_samples) / NUM_TIMES
    sigmas = (shift * u / (1 + (shift - 1) * u)).clip(LOWEST_SIGMA, HIGHEST_SIGMA)
    return torch.from_numpy(sigmas).float()


def per_sample(values_B: Tensor, like: Tensor) -> Tensor:
    """[B] with as many axes as ``like``."""
    return values_B.view(-1, *[1] * (like.ndim - 1))


def noised(x: Tensor, noise: Tensor, sigmas_B: Tensor) -> Tensor:
    """``(1 - sigma) * x + sigma * noise``."""
    sigma = per_sample(sigmas_B, x)
    return (1 - sigma) * x + sigma * noise


@torch.no_grad()
def matching_gradient(x: Tensor, noise: Tensor, sigmas_B: Tensor, real: Flow, fake: Flow) -> Tensor:
    """Direction from the data's score to the generator's own, in float64 (spec section 6.2, item 4).

    Args:
        x: samples of the generator.
        noise: standard normal, same shape.
        sigmas_B: noise levels.
        real: the guided teacher.
        fake: the critic.

    Returns:
        (x_fake - x_real) / mean|x - x_real|, the mean over each sample; 0 where that is not finite.
    """
    x_sigma, sigma = noised(x, noise, sigmas_B), per_sample(sigmas_B, x).double()
    x_real = x_sigma.double() - sigma * real(x_sigma, sigmas_B).double()
    x_fake = x_sigma.double() - sigma * fake(x_sigma, sigmas_B).double()
    distance_B = (x.double() - x_real).abs().flatten(1).mean(dim=1)
    return torch.nan_to_num((x_fake - x_real) / per_sample(distance_B, x), nan=0.0, posinf=0.0, neginf=0.0)


def matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient in ``x`` is ``gradient / x.numel()``; its value tells the gradient's size."""
    x = x.double()
    return 0.5 * mse_loss(x, (x - gradient).detach())


def critic_loss(x: Tensor, noise: Tensor, sigmas_B: Tensor, fake: Flow) -> Tensor:
    """Flow matching on samples of the generator (spec section 6.3)."""
    x = x.detach()
    return flow_error(fake(noised(x, noise, sigmas_B), sigmas_B), noise - x, sigmas_B)


def flow_error(flow: Tensor, wanted: Tensor, sigmas_B: Tensor) -> Tensor:
    """Mean squared error of a flow, below ``LEVEL_FLOW`` that of the clean sample it leads to: a network that predicts
    clean samples has a flow whose error grows without bound as the noise vanishes."""
    weight = per_sample((sigmas_B / LEVEL_FLOW).clamp(max=1).square(), wanted)
    return (weight * (flow.float() - wanted).square()).mean()


def forward_kl_loss(flow: Tensor, chord: Tensor) -> Tensor:
    """Squared distance between the student's flow at a point of a teacher's trajectory and the teacher's mean flow
    from there to the next level (paper, Eq. 10), in float32."""
    return mse_loss(flow.float(), chord.float())
