"""The engine with its kernels on gives the latents of the oracle, which has none."""

import sys

import pytest
from torch import Tensor

from tests.kernels.conftest import Call
from tests.stage import micro

NUM_BLOCKS = 2
"""The second reads pages of the first; Triton's interpreter is slow."""


def roll_out() -> tuple[list[Tensor], bool]:
    """A video's blocks by the engine, and whether attention went through a kernel."""
    bench = micro.Bench(micro.rollout())
    bench.open("a")
    for block in range(NUM_BLOCKS):
        bench.block("a", block, last=block + 1 == NUM_BLOCKS)
    bench.run()
    return [bench.latents["a", block] for block in range(NUM_BLOCKS)], "kernels.attention.triton" in sys.modules


@pytest.mark.slow
def test_kernels_give_the_oracles_latents(interpreted: Call) -> None:
    latents, through_kernels = interpreted(roll_out)
    assert through_kernels
    for latent, expected in zip(latents, micro.oracle(micro.rollout(), NUM_BLOCKS), strict=True):
        assert (latent - expected).abs().max() <= 1e-4
