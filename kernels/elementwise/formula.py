"""The memory-bound steps between matrix products, written as formulas, each with a kernel that does it in one pass.

The kernels are in ``kernels.elementwise.triton`` under the same names. Knows nothing of layers or models.

Letters: G segments, L tokens, E model width, F feed-forward width, H heads, K channels of a head, R rotary pairs of a
head (K / 2), P pages of the pool.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from kernels.dispatch import uses_triton
from kernels.fp8.formula import PageScales, store_page
from kernels.product import product

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

HALF_TYPES = (torch.bfloat16, torch.float16)


def _fused(formula: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the kernel of the same name take the calls that Triton can run; the others run the formula."""

    @functools.wraps(formula)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        first = args[0]
        if not (isinstance(first, Tensor) and uses_triton(first)):
            return formula(*args, **kwargs)
        from kernels.elementwise import triton  # noqa: PLC0415 - Triton loads only where it runs

        kernel: Callable[Arguments, Result] = getattr(triton, formula.__name__)
        return kernel(*args, **kwargs)

    return run


@_fused
def modulated_norm(x_GLE: Tensor, shift_G1E: Tensor, scale_G1E: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine, then ``* (1 + scale) + shift``. Returns [G, L, E]."""
    normed = layer_norm(x_GLE, x_GLE.shape[-1:], eps=eps)
    return torch.addcmul(shift_G1E, normed, 1 + scale_G1E)


@_fused
def gated_residual(x_GLE: Tensor, y_GLE: Tensor, gate_G1E: Tensor) -> Tensor:
    """``x + y * gate``. Returns [G, L, E]."""
    return torch.addcmul(x_GLE, y_GLE, gate_G1E)


@_fused
def gated_residual_norm(
    x_GLE: Tensor, y_GLE: Tensor, gate_G1E: Tensor, weight_E: Tensor, bias_E: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``gated_residual``, then LayerNorm with weight and bias. Returns the sum and its norm, both [G, L, E]."""
    sum_GLE = gated_residual(x_GLE, y_GLE, gate_G1E)
    return sum_GLE, layer_norm(sum_GLE, sum_GLE.shape[-1:], weight_E, bias_E, eps)


@_fused
def residual_modulated_norm(
    x_GLE: Tensor, y_GLE: Tensor, shift_G1E: Tensor, scale_G1E: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``x + y``, then ``modulated_norm``. Returns the sum and its norm, both [G, L, E]."""
    sum_GLE = x_GLE + y_GLE
    return sum_GLE, modulated_norm(sum_GLE, shift_G1E, scale_G1E, eps)


@_fused
def rms_norm(x: Tensor, weight_E: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square over the last axis, taken in float32, then scale. Same shape and type as x."""
    x32 = x.float()
    inverse_rms = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return (x32 * inverse_rms).to(x.dtype) * weight_E


def rotate(x_GLHK: Tensor, rotations_GLR: Tensor) -> Tensor:
    """Multiply channel pairs (2r, 2r + 1), read as complex numbers, by unit rotations (complex64). Same shape as x."""
    pairs = torch.view_as_complex(x_GLHK.float().unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * rotations_GLR.unsqueeze(-2)).flatten(-2)
    return turned.to(x_GLHK.dtype)


@_fused
def norm_rotate(x_GLE: Tensor, weight_E: Tensor, rotations_GLR: Tensor, num_heads: int, eps: float) -> Tensor:
    """RMS norm over the full width, split into heads, rotary positions (spec section 1.3, item 5).

    Returns [G, L, H, K].
    """
    return rotate(rms_norm(x_GLE, weight_E, eps).unflatten(-1, (num_heads, -1)), rotations_GLR)


@_fused
def norm_rotate_store(
    k_GLE: Tensor,
    v_GLE: Tensor,
    weight_E: Tensor,
    rotations_GLR: Tensor,
    num_heads: int,
    eps: float,
    k_pages_PLHK: Tensor,
    v_pages_PLHK: Tensor,
    write_pages_G: Tensor,
    scales: PageScales | None = None,
) -> tuple[Tensor, Tensor]:
    """``norm_rotate`` the keys, and write keys and values of the segments that have a page into it.

    Args:
        k_GLE: keys as projected.
        v_GLE: values as projected.
        weight_E: of the RMS norm.
        rotations_GLR: complex64.
        num_heads: H.
        eps: of the RMS norm.
        k_pages_PLHK: one layer's keys of the whole pool; a page may hold more tokens than L, the first L are written.
        v_pages_PLHK: one layer's values of the whole pool.
        write_pages_G: int32, the page of each segment, all different; -1 for a segment that writes none.
        scales: of pages in 8 bits, which are written too; None where pages have the type of the keys.

    Returns:
        Keys and values of all segments, both [G, L, H, K], as they were before they were rounded to a page.
    """
    k_GLHK = norm_rotate(k_GLE, weight_E, rotations_GLR, num_heads, eps)
    v_GLHK = v_GLE.unflatten(-1, (num_heads, -1))
    num_tokens = k_GLE.shape[1]
    for segment, page in enumerate(write_pages_G.tolist()):
        if page >= 0 and scales is None:
            k_pages_PLHK[page, :num_tokens] = k_GLHK[segment]
            v_pages_PLHK[page, :num_tokens] = v_GLHK[segment]
        elif page >= 0 and scales is not None:
            store_page(k_GLHK[segment], k_pages_PLHK[page], scales.keys_PHL[page])
            store_page(v_GLHK[segment], v_pages_PLHK[page], scales.values_PHL[page])
    return k_GLHK, v_GLHK


def linear_gelu(x_GLE: Tensor, weight_FE: Tensor, bias_F: Tensor) -> Tensor:
    """``gelu(x @ weight.T + bias)``, GELU in its tanh form. Returns [G, L, F].

    A pass of our own could not save anything: the product already adds the bias, and F is the widest tensor of the
    model. On CUDA, cuBLASLt also applies GELU before the product leaves the registers, on numbers that are not yet
    rounded. That is for half types: how exact it is in float32 is not documented. On CPU the same call of PyTorch is
    the erf form (pytorch/pytorch#104061).
    """
    if x_GLE.is_cuda and x_GLE.dtype in HALF_TYPES:
        out_XF: Tensor = torch._addmm_activation(bias_F, x_GLE.flatten(0, -2), weight_FE.t(), use_gelu=True)
        return out_XF.view(*x_GLE.shape[:-1], -1)
    return gelu(product(x_GLE, weight_FE, bias_F), approximate="tanh")
