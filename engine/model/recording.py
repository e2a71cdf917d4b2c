"""Work recorded once and repeated: CUDA graphs, and the two types by which a plain call can stand in for them.

A CUDA graph repeats kernels without Python and without starting them one by one. It reads and writes the tensors that
it was recorded with. Knows no network.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Replay = Callable[[], Tensor]
"""Does the recorded work on what its tensors hold now; the output is overwritten by the next replay."""
Recording = Callable[[Callable[[], Tensor]], Replay]
"""Makes a replay of some work; it may run the work any number of times."""

WARM_UP_RUNS = 2
"""Runs before a recording: kernels are compiled and libraries take their workspaces, which a recording cannot hold."""


def cuda_graphs() -> Recording:
    """Record CUDA graphs on the current device, all in one pool of memory.

    A graph may overwrite what another one left there, so an output holds until the next replay of any.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(work: Callable[[], Tensor]) -> Replay:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            output = work()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    return record
