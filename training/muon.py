"""The Muon optimizer for matrices and kernels: momentum whose singular values are all made about one.

``torch.optim.Muon`` computes in bfloat16, which a CPU without such products does seven times slower than this step's
forward and backward pass together; this one stays in the weights' own type, and takes matrices of one shape together.
Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the size of the update is matched
to AdamW's after Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ITERATIONS = 5
MATCH_ADAMW = 0.2


def orthogonalised(matrices_NRC: Tensor) -> Tensor:
    """About the nearest matrices with orthonormal rows or columns, by Newton-Schulz iterations. [N, R, C]."""
    is_tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x: Tensor = matrices_NRC.mT if is_tall else matrices_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        squares = x @ x.mT
        x = a * x + torch.baddbmm(b * squares, squares, squares, alpha=c) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. Parameters are matrices, or kernels, which count as matrices of a row for each
    output channel."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients that there are."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                weights: list[Tensor] = list(parameters)
                moved_NRC = torch.stack([self._moved(one, group["momentum"]) for one in parameters]).flatten(2)
                updates = orthogonalised(moved_NRC).unflatten(2, shape[1:])
                scale = MATCH_ADAMW * max(moved_NRC.shape[1:]) ** 0.5
                torch._foreach_add_(weights, list(updates), alpha=-group["lr"] * scale)

    def _moved(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, ahead along its running mean."""
        assert parameter.grad is not None
        state: dict[str, Any] = self.state[parameter]
        mean: Tensor = state.setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)
