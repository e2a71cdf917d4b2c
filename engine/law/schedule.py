"""The law of hierarchical denoising: noise levels, context, windows and frame counts, as pure functions.

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
blocks in ``attended_blocks(b)`` and to its own tokens, densely.
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
def noise_levels(rollout: RolloutConfig) -> tuple[Level, ...]:
    """The S + 1 levels a block passes, noisiest first; the last is clean (spec section 3.2).

    Nominal steps index the shifted table; a level's sigma is the table entry itself, so no search is needed.
    """
    sigmas = sigma_table(rollout.timestep_shift)
    picked = [sigmas[NUM_TRAIN_TIMESTEPS - step] for step in rollout.denoising_steps]
    levels = [Level(timestep=_float32(sigma * NUM_TRAIN_TIMESTEPS), sigma=sigma) for sigma in picked]
    return (*levels, Level(timestep=float(rollout.context_timestep), sigma=0.0))


def context_stage(rollout: RolloutConfig, stage: int) -> int:
    """The stage whose pages ``stage`` attends to."""
    return stage if rollout.order == Order.STEP_FIRST else rollout.num_stages - 1


def writes_pages(rollout: RolloutConfig, stage: int) -> bool:
    """Whether ``stage`` runs cache passes."""
    return context_stage(rollout, stage) == stage


def attended_blocks(rollout: RolloutConfig, block: int) -> tuple[int, ...]:
    """Earlier blocks that both passes of ``block`` attend to, ascending; the own block comes on top of them.

    Sinks count in the window: with k sink blocks only the last ``window - k`` others stay (spec section 4.1).
    """
    sinks = min(rollout.sink_blocks, block)
    first_recent = max(sinks, block - (rollout.window_blocks - 1 - sinks))
    return (*range(sinks), *range(first_recent, block))


def evicted_block(rollout: RolloutConfig, block: int) -> int | None:
    """The block whose page nobody needs once C(block) has run, or None while the window still fills.

    It is ``block`` itself when the sinks leave room for nothing but the own block.
    """
    still_needed = set(attended_blocks(rollout, block + 1))
    gone = [b for b in (*attended_blocks(rollout, block), block) if b not in still_needed]
    assert len(gone) <= 1, f"{gone} left the window at once"
    return gone[0] if gone else None


def pages_per_video(rollout: RolloutConfig) -> int:
    """Pages one video takes at full window, over all stages that write pages."""
    writers = sum(writes_pages(rollout, stage) for stage in range(rollout.num_stages))
    return writers * rollout.window_blocks


def frames_in_block(rollout: RolloutConfig, block: int) -> int:
    """Pixel frames block ``block`` decodes to: the very first latent frame gives one, all others four."""
    frames = VAE_TEMPORAL_STRIDE * rollout.latent_frames_per_block
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


def block_at_frame(rollout: RolloutConfig, frame: int) -> int:
    """The first block that starts at or after ``frame``: where a timed prompt takes effect."""
    return 0 if frame <= 0 else blocks_for_frames(rollout, frame)
