"""The law of hierarchical denoising: noise levels and frame counts, as pure functions.

Everything that decides *what* a stage computes lives here and nowhere else; who computes it, when and on which device
is decided elsewhere and cannot change a value.

Theory of operation
-------------------
S stages denoise every block; stage s brings a block from level s to level s + 1. Level S is clean (timestep 0).

==========  =================================  ==========================================================
pass        input                              effect
==========  =================================  ==========================================================
D(s, b)     block b at level s                 predicts the clean block x0; reads pages, writes none
re-noise    x0 and keyed noise (s < S - 1)     block b at level s + 1: what stage s + 1 receives, bit for bit
C(s, b)     block b at level s + 1             writes block b's page, which later blocks attend to
==========  =================================  ==========================================================

*Step-first* (HiAR): every stage owns pages, at its own output level; the context of D(s, b) is one level cleaner than
its block (paper, Algorithm 1; spec section 4.3). *Block-first* (Self-Forcing): only the last stage writes pages, at
level S, and every stage reads those (spec section 4.2). Either way a pass of block b attends to the pages of the
blocks in ``attended_blocks(b)`` (``engine.law.window``) and to its own tokens, densely.

Other checkpoints differ in some of it. A block of fewer steps than there are stages begins at a later stage. The ODE
transition takes the predicted flow in place of noise. With clean context C(s, b) reads x0 at level S, and so it does
for blocks that are known before the stages begin: those given with the request, and those finished alone.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from engine.config import Order, RolloutConfig

NUM_TRAIN_TIMESTEPS = 1000
VAE_TEMPORAL_STRIDE = 4


@dataclass(frozen=True)
class Level:
    """A noise level: what the network is told (``timestep``) and the noise it holds (``sigma``)."""

    timestep: float
    sigma: float


def _float32(value: float) -> float:
    """Round to the nearest float32, as the reference's tables do."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


@lru_cache
def sigma_table(shift: float) -> tuple[float, ...]:
    """The 1000 shifted noise levels, each operation rounded to float32 (spec section 3.1).

    A float64 operation on float32 values followed by one rounding equals the float32 operation, so these are the
    reference's values to the last bit. The base grid is torch's ``linspace(1, 0, 1001)`` without its end, which fills
    its second half from the end.
    """
    step = _float32(-1.0 / NUM_TRAIN_TIMESTEPS)
    half = (NUM_TRAIN_TIMESTEPS + 1) // 2
    sigmas = []
    for k in range(NUM_TRAIN_TIMESTEPS):
        base = _float32(1.0 + step * k if k < half else -step * (NUM_TRAIN_TIMESTEPS - k))
        sigmas.append(_float32(_float32(shift * base) / _float32(1.0 + _float32((shift - 1.0) * base))))
    return tuple(sigmas)


@lru_cache
def _levels(rollout: RolloutConfig, steps: tuple[int, ...]) -> tuple[Level, ...]:
    sigmas = sigma_table(rollout.timestep_shift)
    timesteps = [_float32(sigma * NUM_TRAIN_TIMESTEPS) for sigma in sigmas]
    levels = []
    for step in steps:
        if rollout.raw_steps:
            nearest = min(range(NUM_TRAIN_TIMESTEPS), key=lambda k: abs(timesteps[k] - step))
            levels.append(Level(timestep=float(step), sigma=sigmas[nearest]))
        else:
            index = NUM_TRAIN_TIMESTEPS - step
            levels.append(Level(timestep=timesteps[index], sigma=sigmas[index]))
    return (*levels, clean_level(rollout))


def clean_level(rollout: RolloutConfig) -> Level:
    """What clean context is told to be (``checkpoints`` spec section 2)."""
    return Level(timestep=float(rollout.context_timestep), sigma=0.0)


def noise_levels(rollout: RolloutConfig) -> tuple[Level, ...]:
    """The levels that blocks pass, noisiest first; the last is clean (spec section 3.2).

    Nominal steps index the shifted table: a level's sigma is the entry itself. Raw ones take the nearest entry's
    (``checkpoints`` spec section 1).
    """
    return _levels(rollout, rollout.denoising_steps)


def levels_of(rollout: RolloutConfig, *, opening: bool) -> tuple[Level, ...]:
    """The levels that a block passes; ``opening`` for the first one that is denoised, which may take other steps."""
    return _levels(rollout, _steps(rollout, opening=opening))


def first_stage(rollout: RolloutConfig, *, opening: bool) -> int:
    """The stage at which a block begins: one of fewer steps than there are stages passes the first ones as it came."""
    return rollout.num_stages - len(_steps(rollout, opening=opening))


def passes_of_block(rollout: RolloutConfig, num_stages: int) -> int:
    """Passes that a block takes in so many adjacent stages, the last one among them in block-first order, whose one
    cache pass is there. The opening block may take more.
    """
    if rollout.order == Order.STEP_FIRST:
        return 2 * num_stages
    return min(num_stages, len(rollout.denoising_steps)) + 1


def context_level(rollout: RolloutConfig, stage: int) -> Level:
    """The level at which the cache passes of a stage encode what it denoised."""
    if rollout.clean_context or stage == rollout.num_stages - 1:
        return clean_level(rollout)
    return noise_levels(rollout)[stage + 1]


def _steps(rollout: RolloutConfig, *, opening: bool) -> tuple[int, ...]:
    first = rollout.first_block_steps
    return first if opening and first is not None else rollout.denoising_steps


def latent_frames_in_block(rollout: RolloutConfig, block: int) -> int:
    """Latent frames of a block."""
    first = rollout.first_block_latent_frames
    return first if block == 0 and first is not None else rollout.latent_frames_per_block


def first_latent_frame(rollout: RolloutConfig, block: int) -> int:
    """Latent frames of all blocks before ``block``: where it stands in time."""
    if block == 0:
        return 0
    return latent_frames_in_block(rollout, 0) + (block - 1) * rollout.latent_frames_per_block


def frames_in_block(rollout: RolloutConfig, block: int) -> int:
    """Pixel frames block ``block`` decodes to: the very first latent frame gives one, all others four."""
    frames = VAE_TEMPORAL_STRIDE * latent_frames_in_block(rollout, block)
    return frames if block > 0 else frames - VAE_TEMPORAL_STRIDE + 1


def frames_before_block(rollout: RolloutConfig, block: int) -> int:
    """Pixel frames of all blocks before ``block``."""
    if block == 0:
        return 0
    return frames_in_block(rollout, 0) + (block - 1) * frames_in_block(rollout, 1)


def blocks_for_frames(rollout: RolloutConfig, num_frames: int) -> int:
    """Blocks needed to show ``num_frames`` frames; at least one."""
    beyond_first = max(0, num_frames - frames_in_block(rollout, 0))
    return 1 + -(-beyond_first // frames_in_block(rollout, 1))


def block_with_frame(rollout: RolloutConfig, frame: int) -> int:
    """The block that shows ``frame``."""
    return blocks_for_frames(rollout, frame + 1) - 1


def block_at_frame(rollout: RolloutConfig, frame: int) -> int:
    """The first block that starts at or after ``frame``: where a timed prompt takes effect."""
    return 0 if frame <= 0 else blocks_for_frames(rollout, frame)


def most_start_blocks(rollout: RolloutConfig) -> int:
    """Blocks that a clip gives at most: as many as the block behind them attends to, and at least one."""
    return max(1, rollout.window_blocks - 1)


def start_blocks(rollout: RolloutConfig, num_frames: int) -> int:
    """Whole blocks that a picture (one frame) or a clip of so many frames gives; at least one."""
    most = most_start_blocks(rollout)
    return max(k for k in range(1, most + 1) if k == 1 or frames_before_block(rollout, k) <= num_frames)
