"""Noise as a function of (seed, block, step): the same numbers in any order, process and place (design, law 7).

Counter-based: word i of the noise is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011) of a counter and a key, so nothing is drawn in sequence and nothing is stored.

=============  ========================================================
counter word   value
=============  ========================================================
0              element index // 4
1, 2           block, low and high 32 bits
3              step of the block whose input the noise enters (0: initial noise)
key 0, 1       seed, low and high 32 bits
=============  ========================================================

The four words of a counter give four normal numbers by two Box-Muller pairs in float64, rounded to float32. Integer
words are equal on every device; the float64 logarithm and cosine may differ in the last place between a CPU and a GPU,
which float32 rounding all but always hides.
"""

import math
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.config import RolloutConfig
from engine.law.schedule import first_latent_frame

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


class Noise(Protocol):
    """Where a stage gets its noise from. A block's steps are counted from 0; most have one at each stage."""

    def __call__(self, seed: int, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of ``shape`` for the input of the block's step, float32."""
        ...


class KeyedNoise:
    """Philox noise on a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, seed: int, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of ``shape``, float32 on the device. ``seed`` is 0 .. 2**64 - 1."""
        num_elements = math.prod(shape)
        groups = torch.arange(-(-num_elements // 4), dtype=torch.int64, device=self._device)
        fixed = (block & _MASK, block >> 32, step)
        counter = [groups, *(torch.full_like(groups, word) for word in fixed)]
        words = philox(counter, (seed & _MASK, seed >> 32))
        normals = [*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])]
        return torch.stack(normals, dim=-1).flatten()[:num_elements].view(shape)


class RecordedNoise:
    """Noise tables from a file, for runs that must repeat somebody else's numbers (parity).

    The recording holds ``initial_noise`` [F, C, Y, X] and ``renoise.{s}``, the noise between step s and s + 1, with
    F the latent frames of all blocks in order. Initial frames that are given may have no rows in it.
    """

    def __init__(self, path: Path, rollout: RolloutConfig, device: torch.device, first_frame: int = 0) -> None:
        """``first_frame``: the latent frame that the first rows are for."""
        self._rollout, self._first_frame = rollout, first_frame
        tensors = load_file(path, device=str(device))
        self._tables = {0: tensors["initial_noise"]}
        self._tables |= {
            int(name.removeprefix("renoise.")) + 1: table
            for name, table in tensors.items()
            if name.startswith("renoise.")
        }

    def __call__(self, seed: int, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The block's rows of the step's table; the seed has no part in it."""
        start = first_latent_frame(self._rollout, block) - self._first_frame
        return self._tables[step][start : start + shape[0]]


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox 4x32-10 of four int64 tensors of 32-bit words: four tensors of 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return [c0, c1, c2, c3]


def _multiply(constant: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; int64 overflow wraps, and the mask drops the sign it leaves."""
    product = words * constant
    return (product >> 32) & _MASK, product & _MASK


def _box_muller(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals of two words, by way of uniforms in the open interval (0, 1)."""
    radius = torch.sqrt(-2.0 * torch.log((word0.double() + 0.5) / 2**32))
    angle = (2.0 * math.pi) * ((word1.double() + 0.5) / 2**32)
    return (radius * torch.cos(angle)).float(), (radius * torch.sin(angle)).float()
