"""The transition: how a block gets from one noise level to the next. The runner and the oracle share it.

Works on any tensor type that casts and computes as torch's do; imports none.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
