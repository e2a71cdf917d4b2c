"""temp"""

import torch

from engine.model.rope import ROPE_BASE, pairs_by_axis
from engine.model.segments import PagedCache


def turn_page(cache: PagedCache, source: int, target: int, offset_frames: int) -> None:
    """Copy a page, its keys turned by so many latent frames."""
    k = cache.keys_NPLHK[:, source]
    n = pairs_by_axis(k.shape[-1])[0]
    e = torch.arange(n, dtype=torch.float64, device=k.device) / max(n, 1)
    a = offset_frames * ROPE_BASE**-e
    t = torch.polar(torch.ones_like(a), a).to(torch.complex64)
    pairs = torch.view_as_complex(k[..., : 2 * n].float().unflatten(-1, (n, 2)).contiguous())
    cache.keys_NPLHK[:, target] = k
    cache.keys_NPLHK[:, target, ..., : 2 * n] = torch.view_as_real(pairs * t).flatten(-2).to(k.dtype)
    cache.values_NPLHK[:, target] = cache.values_NPLHK[:, source]
