"""The transition: how a block gets from one noise level to the next. The runner and the oracle share it.

Works on any tensor type that casts and computes as torch's do; imports none.
"""

from typing import TYPE_CHECKING

from engine.config import RolloutConfig, Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.law.schedule import Level


def predict_x0(x: "Tensor", flow: "Tensor", level: "Level") -> "Tensor":
    """The clean block, ``x - sigma * flow`` in float64, in the flow's type (spec section 3.3).

    Args:
        x: the block at ``level``, of any shape.
        flow: what the network predicts for it, of that shape.
        level: the noise level of ``x``.
    """
    return (x.double() - level.sigma * flow.double()).to(flow.dtype)


def re_noise(x0: "Tensor", noise: "Tensor", level: "Level") -> "Tensor":
    """The block at ``level``, ``(1 - sigma) * x0 + sigma * noise`` in float32, in the clean block's type.

    As in spec section 3.4.

    ``1 - sigma`` is exact in Python's floats, so it is rounded once, as a subtraction in float32 would be.

    Args:
        x0: the clean block, of any shape.
        noise: fresh normal noise of that shape.
        level: the noise level to go to.
    """
    return ((1 - level.sigma) * x0.float() + level.sigma * noise.float()).to(x0.dtype)


def along_flow(x: "Tensor", flow: "Tensor", level: "Level", following: "Level") -> "Tensor":
    """The block at ``following``, ``x + (sigma' - sigma) * flow`` in float32, in its own type.

    The paper's Algorithm 1 (spec section 3.5).

    Args:
        x: the block at ``level``, of any shape.
        flow: what the network predicts for it, of that shape.
        level: the noise level of ``x``.
        following: the noise level to go to.
    """
    return (x.float() + (following.sigma - level.sigma) * flow.float()).to(x.dtype)


def step(
    rollout: RolloutConfig,
    x: "Tensor",
    flow: "Tensor",
    level: "Level",
    following: "Level",
    noise: "Callable[[], Tensor]",
) -> tuple["Tensor", "Tensor"]:
    """What a denoise pass makes of a block: the clean prediction, and the block at the level that follows.

    Args:
        rollout: its transition counts; to the clean level there is but one way.
        x: the block at ``level``, of any shape.
        flow: what the network predicts for it, of that shape.
        level: the noise level of ``x``.
        following: the noise level to go to.
        noise: draws fresh normal noise of that shape; called where noise is needed.
    """
    x0 = predict_x0(x, flow, level)
    if following.sigma == 0:
        return x0, x0
    if rollout.transition == Transition.ODE:
        return x0, along_flow(x, flow, level, following)
    return x0, re_noise(x0, noise(), following)
