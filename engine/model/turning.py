"""Copies of pages whose keys are turned in time, for sinks whose positions move with the window.

A rotation by position is a multiplication by unit complex numbers, so a key of latent frame f that is turned by d
latent frames is the key of latent frame f + d. Only the pairs of the time axis turn; height and width stay.
"""

import torch

from engine.model.rope import rotations
from engine.model.segments import PagedCache
from kernels.elementwise.formula import rotate
from kernels.fp8.formula import load_page, store_page


def turn_page(cache: PagedCache, source: int, target: int, offset_frames: int) -> None:
    """Copy a page, with its keys as they would be had its block come later in time.

    Angles are taken in float64 and products in float32; what a page holds is rounded once more. So a page should always
    be turned from where it was first written, not from a copy that was turned.

    Args:
        cache: all pages, in 8 bits or not.
        source: page that is read; all its rows are copied.
        target: another page, which is written in all layers.
        offset_frames: latent frames from the source's position to the target's; may be negative.

    Raises:
        ValueError: source and target are the same page.
    """
    if source == target:
        raise ValueError(f"page {source} would be turned in place and rounded anew each time; copy it to another page")
    keys_NPLHK, key_scales_NPHL = cache.keys_NPLHK, cache.key_scales_NPHL
    offset_G = torch.tensor([offset_frames], device=keys_NPLHK.device)
    turn_GLR = rotations(offset_G, (1, 1, 1), keys_NPLHK.shape[-1])  # of one token at the origin of height and width
    for layer, pages_PLHK in enumerate(keys_NPLHK):  # one by one: together they take a gigabyte as float32
        if key_scales_NPHL is None:
            pages_PLHK[target] = rotate(pages_PLHK[source, None], turn_GLR)[0]
            continue
        scales_PHL = key_scales_NPHL[layer]
        keys_LHK = load_page(pages_PLHK[source], scales_PHL[source], torch.float32)
        store_page(rotate(keys_LHK[None], turn_GLR)[0], pages_PLHK[target], scales_PHL[target])
    cache.values_NPLHK[:, target] = cache.values_NPLHK[:, source]
    if cache.value_scales_NPHL is not None:
        cache.value_scales_NPHL[:, target] = cache.value_scales_NPHL[:, source]
