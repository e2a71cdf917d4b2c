"""Products with weights in which no segment's numbers depend on how many others are beside it.

A BLAS sums in an order that depends on the number of rows, so that a pass would come out otherwise alone than with
others, by float rounding; which passes share a forward is a matter of time. On a CPU a product a segment costs nothing
that can be measured: a segment has rows enough. On a GPU forwards are captured as they are, and it would cost launches.

Letters: G segments, E and F widths.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def product(x_GE: Tensor, weight_FE: Tensor, bias_F: Tensor | None) -> Tensor:
    """``x @ weight.T + bias`` for [G, ..., E], a segment at a time on a CPU. Returns [G, ..., F]."""
    if len(x_GE) == 1 or x_GE.device.type != "cpu":
        return functional.linear(x_GE, weight_FE, bias_F)
    return torch.cat([functional.linear(x_1E, weight_FE, bias_F) for x_1E in x_GE.split(1)])


class SegmentLinear(nn.Linear):
    """A linear layer of segments."""

    def forward(self, x_GE: Tensor) -> Tensor:
        """[G, ..., F] of [G, ..., E]."""
        return product(x_GE, self.weight, self.bias)
