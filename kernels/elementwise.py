"""The memory-bound steps between matrix products, written as formulas: the twins of the fused kernels.

Knows nothing of layers or models.

Letters: G segments, L tokens, E model width, H heads, K channels of a head, R rotary pairs of a head (K / 2).
"""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm


def modulated_norm(x_GLE: Tensor, shift_G1E: Tensor, scale_G1E: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine, then ``* (1 + scale) + shift``. Returns [G, L, E]."""
    normed = layer_norm(x_GLE, x_GLE.shape[-1:], eps=eps)
    return torch.addcmul(shift_G1E, normed, 1 + scale_G1E)


def gated_residual(x_GLE: Tensor, y_GLE: Tensor, gate_G1E: Tensor) -> Tensor:
    """``x + y * gate``. Returns [G, L, E]."""
    return torch.addcmul(x_GLE, y_GLE, gate_G1E)


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


def norm_rotate(x_GLE: Tensor, weight_E: Tensor, rotations_GLR: Tensor, num_heads: int, eps: float) -> Tensor:
    """RMS norm over the full width, split into heads, rotary positions (spec section 1.3, item 5).

    Returns [G, L, H, K].
    """
    return rotate(rms_norm(x_GLE, weight_E, eps).unflatten(-1, (num_heads, -1)), rotations_GLR)
