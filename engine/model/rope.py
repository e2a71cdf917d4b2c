"""Rotary positions of a block's tokens on three axes: time, height, width (spec section 1.3, item 6).

Knows no table and no length limit: angles come from absolute positions in float64, so block 1,000,000 is as exact as
block 0.

Letters: G segments, L tokens of a block in (latent frame, row, column) order, R rotary pairs of a head.
"""

import torch
from torch import Tensor

ROPE_BASE = 10000.0


def pairs_by_axis(head_dim: int) -> tuple[int, int, int]:
    """Rotary pairs given to time, height and width: height and width take a third each, time the rest."""
    third = head_dim // 6
    return head_dim // 2 - 2 * third, third, third


def rotations(starts_G: Tensor, grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """Unit complex numbers that rotate each channel pair of each token.

    Args:
        starts_G: the latent frame that each segment begins at, counted from the video's first; int64.
        grid: latent frames, token rows and token columns of a block.
        head_dim: channels of a head.

    Returns:
        complex64 [G, L, R] with L = the product of ``grid``; angles and their sine and cosine are taken in float64.
    """
    num_frames, rows, columns = grid
    device = starts_G.device
    time_GF = starts_G[:, None] + torch.arange(num_frames, device=device)
    shape = (len(starts_G), num_frames, rows, columns, -1)
    axis_pairs = pairs_by_axis(head_dim)
    time = _angles(time_GF, axis_pairs[0])[:, :, None, None, :].expand(shape)
    height = _angles(torch.arange(rows, device=device), axis_pairs[1])[None, None, :, None, :].expand(shape)
    width = _angles(torch.arange(columns, device=device), axis_pairs[2])[None, None, None, :, :].expand(shape)
    angles_GLR = torch.cat([time, height, width], dim=-1).flatten(1, 3)
    return torch.polar(torch.ones_like(angles_GLR), angles_GLR).to(torch.complex64)


def _angles(positions: Tensor, num_pairs: int) -> Tensor:
    """Angle of each pair at each position, float64: ``position * base ** (-pair / num_pairs)``."""
    exponents = torch.arange(num_pairs, dtype=torch.float64, device=positions.device) / max(num_pairs, 1)
    return positions.double()[..., None] * ROPE_BASE**-exponents
