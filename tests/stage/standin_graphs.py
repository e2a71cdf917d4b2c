"""A stand-in for CUDA graphs on a CPU: it replays a closure, bound to the addresses that it was captured with.

A graph reads and writes addresses, whoever owns them by then. Python keeps alive what a closure names, so the stand-in
is told of every page pool that is made and given back, and fails where a replay touches one that is gone, or a buffer
that was not there at the capture.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.model.capture import Captured, Captures, Work
from engine.stage import build
from engine.stage.pages import PagePool


class Touched(TorchDispatchMode):
    """Addresses of storages that some work reads or writes and did not make."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[int] = set()
        self._made: dict[int, torch.UntypedStorage] = {}
        """Kept, so that no address is used twice."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if "lift_fresh" not in str(func):  # what it is given is a constant that the work makes
            self.addresses |= storages_of((args, kwargs)).keys() - self._made.keys()
        out = func(*args, **(kwargs or {}))
        self._made |= {at: one for at, one in storages_of(out).items() if at not in self.addresses}
        return out


def storages_of(tree: Any) -> dict[int, torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.numel()]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}


class StandInGraphs:
    """Everything captured in a test, and the pools that it may be about."""

    def __init__(self) -> None:
        self.num_captures = 0
        self.num_replays = 0
        self._num_pools = 0
        self._live: dict[int, int] = {}
        """Number of the pool that lies at an address."""

    def captures(self) -> Captures:
        """Those of a worker."""
        return Captures(self.capture)

    def watch(self, pool: PagePool) -> None:
        """A pool was made; remember when it is given back."""
        self._num_pools += 1
        addresses = {tensor.data_ptr() for tensor in pool.cache.tensors}
        self._live |= dict.fromkeys(addresses, self._num_pools)
        weakref.finalize(pool, self._given_back, self._num_pools)

    def capture(self, work: Work) -> Captured:
        """As ``cuda_graphs`` does: run it once to warm up, once to capture."""
        self.num_captures += 1
        work()
        output, bound = self._run(work)
        pools = {self._live[address] for address in bound if address in self._live}
        is_checked = False

        def replay() -> Tensor:
            nonlocal is_checked
            self.num_replays += 1
            assert pools <= set(self._live.values()), "a graph runs over a pool that was given back"
            if is_checked:  # the same closure touches the same buffers; to watch it takes long
                return output.copy_(work())
            found, touched = self._run(work)
            is_checked = True
            assert touched <= bound | self._live.keys(), "a graph was captured with other buffers"
            return output.copy_(found)

        return replay

    def _run(self, work: Work) -> tuple[Tensor, set[int]]:
        with Touched() as touched:
            found = work()
        return found, touched.addresses

    def _given_back(self, pool: int) -> None:
        self._live = {address: number for address, number in self._live.items() if number != pool}


def install(monkeypatch: pytest.MonkeyPatch) -> StandInGraphs:
    """Let workers on CPUs capture with the stand-in."""
    graphs, make = StandInGraphs(), PagePool.__init__

    def make_watched(pool: PagePool, **arguments: Any) -> None:
        make(pool, **arguments)
        graphs.watch(pool)

    monkeypatch.setattr(PagePool, "__init__", make_watched)
    monkeypatch.setattr(build, "captures_on", lambda device: graphs.captures())
    return graphs
