"""What the command says of each quantity."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from torch import Tensor

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Line:
    """One compared quantity, or several under one name."""

    quantity: str
    errors: Mapping[str, float]
    """Largest absolute error of each."""

    @property
    def max_abs_error(self) -> float:
        """The largest of all, NaN if one is."""
        return max(self.errors.values(), key=lambda error: (isnan(error), error))

    @property
    def ok(self) -> bool:
        """Whether all are numbers within tolerance."""
        return self.max_abs_error <= TOLERANCE

    def __str__(self) -> str:
        """With what is wrong at its end."""
        wrong = ", ".join(name for name, error in self.errors.items() if not error <= TOLERANCE)
        return f"{self.quantity:60s} {self.max_abs_error:.3e}  {f'TOO FAR: {wrong}' if wrong else 'ok'}"


def error_of(ours: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; infinite when shapes differ, NaN when a number is."""
    if ours.shape != expected.shape:
        return float("inf")
    return float((ours.double() - expected.double()).abs().max())
