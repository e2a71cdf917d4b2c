"""Linear layers in 8 bits, and which layers of the transformer become such.

Knows no device beyond the tensors it is given; which devices can is the caller's to know.

Letters: X rows of any shape, E width, F width of the product.
"""

from torch import Tensor, nn

from kernels.fp8.formula import fp8_linear, quantise_rows


class Fp8Linear(nn.Module):
    """A linear layer whose weight is e4m3 with a scale a row; rows of its input are rounded as they come."""

    weight_FE: Tensor
    scales_F1: Tensor
    bias_F: Tensor

    def __init__(self, linear: nn.Module) -> None:
        """Take the numbers of a linear layer that has a bias and is ready for inference."""
        super().__init__()
        assert isinstance(linear, nn.Linear) and linear.bias is not None
        weight_FE, scales_F1 = quantise_rows(linear.weight.detach())
        self.register_buffer("weight_FE", weight_FE)
        self.register_buffer("scales_F1", scales_F1)
        self.register_buffer("bias_F", linear.bias.detach())

    def forward(self, x_XE: Tensor, *, of_gelu: bool = False) -> Tensor:
        """``x @ weight.T + bias``, or ``gelu(x) @ weight.T + bias``. Returns [X, F]."""
        return fp8_linear(x_XE, self.weight_FE, self.scales_F1, self.bias_F, of_gelu=of_gelu)
