"""Numbers in 8 bits (e4m3: one sign, four bits of exponent, three of mantissa) with a float32 scale for each row.

A row is scaled so that its largest number becomes 448, the largest of the type: nothing overflows, whatever the numbers
are. Down to 2**-15 of that, the type rounds a number by 1/16 at most, about 2.6 % in the root mean square; smaller ones
lose digits. Knows nothing of pages, layers or models.

Letters: X rows of any shape, M rows of a matrix, E width of a row, F width of a product; P pages of the pool, L tokens
of a page, H heads, K channels of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu

from kernels.dispatch import uses_triton
from kernels.numbers import FLOOR, FP8, FP8_MAX

MIN_CAPABILITY = (8, 9)
"""Compute capability from which GPUs, and Triton on them, convert to e4m3 and multiply it."""
MULTIPLE = 16
"""Matrices that a GPU multiplies in e4m3 have widths that are multiples of it."""


@dataclass(frozen=True)
class PageScales:
    """What multiplies each token of each head of all pages of one layer. Heads before tokens: a tile reads a run."""

    keys_PHL: Tensor
    values_PHL: Tensor

    @property
    def strides(self) -> tuple[int, int]:
        """Numbers from a page to the next and from a head to the next, the same for keys and values."""
        page, head, token = self.keys_PHL.stride()
        assert self.values_PHL.stride() == (page, head, token) and (token == 1 or self.keys_PHL.shape[2] == 1)
        return page, head


def quantise_rows(x_XE: Tensor, *, of_gelu: bool = False) -> tuple[Tensor, Tensor]:
    """Numbers in 8 bits, of the same shape, and the float32 scale of each row [X, 1] that gives them back.

    With ``of_gelu`` they are those of ``gelu(x)`` in its tanh form.
    """
    if not uses_triton(x_XE):
        return quantise_rows_reference(x_XE, of_gelu=of_gelu)
    from kernels.fp8.triton import quantise_rows_triton  # noqa: PLC0415 - Triton loads only where it runs

    return quantise_rows_triton(x_XE, of_gelu=of_gelu)


def quantise_rows_reference(x_XE: Tensor, *, of_gelu: bool = False) -> tuple[Tensor, Tensor]:
    """The twin of the kernel."""
    x32_XE = gelu(x_XE.float(), approximate="tanh") if of_gelu else x_XE.float()
    largest_X1 = x32_XE.abs().amax(-1, keepdim=True).clamp_min(FLOOR)
    # A number over a tensor would be rounded twice, and kernels divide exactly.
    return (x32_XE * (torch.full_like(largest_X1, FP8_MAX) / largest_X1)).to(FP8), largest_X1 / FP8_MAX


def fp8_linear(x_XE: Tensor, weight_FE: Tensor, scales_F1: Tensor, bias_F: Tensor, *, of_gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias`` with both factors in 8 bits; the scale of a row of x is found anew in each call.

    Args:
        x_XE: of the type of the result; on CUDA bfloat16.
        weight_FE: e4m3; on CUDA both widths are multiples of 16.
        scales_F1: of the weight's rows.
        bias_F: of the type of the result.
        of_gelu: multiply ``gelu(x)``, in its tanh form.

    Returns:
        [X, F]. On CUDA the sums are kept in the tensor cores' own accumulators, which hold some 14 bits of mantissa on
        compute capability 9.0: small beside what the factors lost.
    """
    x8_ME, scales_M1 = quantise_rows(x_XE.flatten(0, -2), of_gelu=of_gelu)
    if x_XE.is_cuda:
        out_MF = torch._scaled_mm(
            x8_ME,
            weight_FE.t(),
            scale_a=scales_M1,
            scale_b=scales_F1.t(),
            bias=bias_F,
            out_dtype=x_XE.dtype,
            use_fast_accum=True,
        )
    else:
        product_MF = x8_ME.float() @ weight_FE.float().t()
        out_MF = (product_MF * scales_M1 * scales_F1.t() + bias_F.float()).to(x_XE.dtype)
    out_XF: Tensor = out_MF.unflatten(0, x_XE.shape[:-1])
    return out_XF


def store_page(x_LHK: Tensor, page_LHK: Tensor, scales_HL: Tensor) -> None:
    """Write keys or values into the first tokens of a page in 8 bits, and their scales."""
    num_tokens = len(x_LHK)
    page_LHK[:num_tokens], scales_LH1 = quantise_rows_reference(x_LHK)
    scales_HL[:, :num_tokens] = scales_LH1[..., 0].t()


def load_page(page_LHK: Tensor, scales_HL: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys or values as a page means them."""
    return (page_LHK.float() * scales_HL.t()[..., None]).to(dtype)
