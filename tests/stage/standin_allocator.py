"""A device that runs out of memory, on a CPU: every storage that is made while it is on takes room until it is gone."""

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StandInAllocator(TorchDispatchMode):
    """Counts the bytes of live storages and refuses what does not fit, as a device's allocator does.

    It sees what operators return, of the thread that it is on in: not what a kernel needs for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room_bytes = sys.maxsize
        self.refused: int | None = None
        """The number of the one allocation, from 1, that does not fit whatever there is room for."""
        self.num_made = 0
        self.live_bytes = 0
        self.peak_bytes = 0
        self._bytes_of: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for storage in _storages((args, kwargs)):
            self._note(storage, 0)  # made elsewhere
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._allocate(storage)
        return out

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        num_bytes = storage.nbytes()
        if storage._cdata in self._bytes_of or num_bytes == 0:
            return
        self.num_made += 1
        free_bytes = self.room_bytes - self.live_bytes
        if num_bytes > free_bytes or self.num_made == self.refused:
            raise torch.OutOfMemoryError(f"tried to allocate {num_bytes} bytes\nand more that nobody reads")
        self._note(storage, num_bytes)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _note(self, storage: torch.UntypedStorage, num_bytes: int) -> None:
        if storage._cdata not in self._bytes_of:
            self._bytes_of[storage._cdata] = num_bytes
            self.live_bytes += num_bytes
            weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.live_bytes -= self._bytes_of.pop(key)


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
