"""What a decoder remembers of a stream between two calls: a plain value with a size.

Does not know which network wrote it, nor which video it belongs to.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class DecodeState:
    """History of one stream after some latent frames; ``None`` in its place means that the stream has not started.

    A decoder reads it and returns a new one. The tensors are never written again, so a state may be kept and decoded
    from twice.
    """

    caches: tuple[Tensor, ...]
    """One tensor for each layer that looks back in time, in execution order."""

    @property
    def num_bytes(self) -> int:
        """Device memory the caches take, in bytes."""
        return sum(cache.numel() * cache.element_size() for cache in self.caches)
