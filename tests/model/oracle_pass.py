"""Single passes of the oracle, for tests that compare one forward and what it leaves in pages.

Letters: L tokens, H heads, K channels of a head.
"""

from torch import Tensor

from engine.law.schedule import Level
from engine.model.dit import CausalWan
from engine.oracle import KeysValues, Seen, forward, turn_to

BlockSeen = tuple[int, KeysValues]
"""Where a block stands, and what others see of it."""


def oracle_pass(
    model: CausalWan, latents_FCYX: Tensor, level: Level, block: int, seen: Seen, embedding_TX: Tensor
) -> tuple[Tensor, BlockSeen]:
    """The flow of a block among blocks of its own length, and what later ones see of it."""
    start = block * len(latents_FCYX)
    flow, own = forward(model, latents_FCYX, level, start, seen, embedding_TX)
    return flow, (start, own)


def as_in_pages(own: BlockSeen, grid: tuple[int, int, int]) -> list[tuple[Tensor, Tensor]]:
    """Keys, turned to their place, and values of each layer: two [L, H, K]."""
    start, layers = own
    return [(turn_to(start, keys, grid), values) for keys, values in layers]
