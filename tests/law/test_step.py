"""The transition against its formula in other arithmetic, at every level of the published roll-out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.config import RolloutConfig
from engine.law.schedule import Level, noise_levels
from engine.law.step import predict_x0, re_noise

LEVELS = noise_levels(RolloutConfig())


def tensors(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, other = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    return x.to(dtype), other.to(dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_added_in_float32(level: Level, dtype: torch.dtype) -> None:
    x0, noise = tensors(dtype)
    sigma = torch.tensor(level.sigma, dtype=torch.float32)
    expected = ((1 - sigma) * x0.float() + sigma * noise.float()).to(dtype)
    assert torch.equal(re_noise(x0, noise, level), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_clean_block_is_found_in_float64(level: Level, dtype: torch.dtype) -> None:
    x, flow = tensors(dtype)
    found = predict_x0(x, flow, level)
    assert found.dtype == dtype and torch.equal(found, (x.double() - level.sigma * flow.double()).to(dtype))


def test_a_step_there_and_back_is_the_block() -> None:
    x0, noise = (tensor.double() for tensor in tensors(torch.float32))
    for level in LEVELS:
        x = (1 - level.sigma) * x0 + level.sigma * noise
        torch.testing.assert_close(predict_x0(x, noise - x0, level), x0)


def test_the_law_loads_no_torch() -> None:
    program = "import sys, engine.law.step, engine.law.memory, engine.law.verdict; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)
