"""What is measured beside all requests: the event loop's lag, the process, its versions and the GPUs."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pynvml  # type: ignore[import-untyped]
from prometheus_client import Histogram, ProcessCollector

from server.gpus import VISIBLE
from server.metrics.families import Families
from server.metrics.gpu import GpuCollector, NvmlPoller
from server.versions import version_of

_LAG_EVERY_S = 0.25


@asynccontextmanager
async def measuring(families: Families, devices: Sequence[str]) -> AsyncIterator[None]:
    """Measure while the body runs.

    Args:
        families: what is filled.
        devices: the names of those that the server uses on this node.
    """
    ProcessCollector(registry=families.registry)
    families.engine.build.labels(version_of("hiar-server"), platform.python_version(), version_of("torch")).set(1)
    collector = GpuCollector()
    families.registry.register(collector)
    poller = NvmlPoller(pynvml, collector, devices, os.environ.get(VISIBLE))
    poller.start()
    lag = asyncio.create_task(_measure_lag(families.engine.loop_lag))
    try:
        yield
    finally:
        lag.cancel()
        poller.stop()


async def _measure_lag(lag: Histogram) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        lag.observe(max(0.0, loop.time() - due))
