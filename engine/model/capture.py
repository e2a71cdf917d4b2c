"""Work captured once and repeated: CUDA graphs, and the two types by which a plain call can stand in for them.

A CUDA graph repeats kernels without Python and without starting them one by one. It reads and writes the addresses
that it was captured with, whatever lies there later. All graphs of a worker share one pool of memory, because no two of
them run at once: the largest is captured first, and the others fit in what it took. Captures happen before a worker
serves and never after: one that is under way is spoilt by what other threads ask of the driver, and asks the driver
itself to wait for receives that may not end for long. Knows no network.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Work = Callable[[], Tensor]
Captured = Callable[[], Tensor]
"""Does the captured work on what its tensors hold now; the output is overwritten by the next call of any."""
Capture = Callable[[Work], Captured]
"""Captures some work; it may run the work any number of times."""

WARM_UP_RUNS = 1
"""Runs before a capture: kernels are compiled and libraries take their workspaces, which a capture cannot hold."""


class Captures:
    """All captures of one worker, until it meets the others."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._open = True
        self.count = 0
        """Captures made so far."""

    def __call__(self, work: Work) -> Captured:
        """Capture some work. Serving may not have begun."""
        assert self._open, "a capture after the worker met the others"
        self.count += 1
        return self._capture(work)

    def close(self) -> None:
        """From now on nothing may be captured."""
        self._open = False


def cuda_graphs(device: torch.device) -> Captures:
    """Captures as CUDA graphs on a device, all in one pool of memory and on one stream beside the one that serves.

    A graph may overwrite what another one left there, so an output holds until the next call of any. One stream, since
    libraries keep a workspace for each that they ever saw. Other threads may use the device meanwhile.
    """
    pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def capture(work: Work) -> Captured:
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                work()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            output = work()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    return Captures(capture)
