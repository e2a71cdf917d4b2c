"""How often `/metrics` is rendered, and where. Counts renders; looks at no clock."""

import asyncio
import threading
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request

from engine import EngineOptions
from server.metrics.endpoint import MetricsRoute
from server.metrics.families import Families
from server.metrics.readings import Readings
from tests.instant import InstantEngine

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


class Renders(Collector):
    """Collected once a render."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.threads.append(threading.current_thread().name)
        return iter(())


class Site:
    def __init__(self) -> None:
        families, self.renders, self.now = Families(1), Renders(), 100.0
        families.registry.register(self.renders)
        readings = Readings(families, InstantEngine(), EngineOptions().max_queue)
        self.route = MetricsRoute(families, readings, 1.0, lambda: self.now)

    async def scrape(self, accept: str = "*/*") -> bytes:
        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [(b"accept", accept.encode())]}
        return bytes((await self.route.metrics(Request(scope))).body)


def test_two_scrapes_within_a_second_render_once() -> None:
    async def body() -> None:
        site = Site()
        first = await site.scrape()
        site.now += 0.99
        assert await site.scrape() == first and len(site.renders.threads) == 1
        site.now += 0.01
        await site.scrape()
        assert len(site.renders.threads) == 2

    asyncio.run(body())


def test_scrapes_at_once_share_a_render_and_formats_do_not() -> None:
    async def body() -> None:
        site = Site()
        texts = await asyncio.gather(*(site.scrape() for _ in range(10)), site.scrape(OPEN_METRICS))
        assert len(set(texts[:10])) == 1 and texts[10].endswith(b"# EOF\n")
        assert len(site.renders.threads) == 2

    asyncio.run(body())


def test_the_event_loop_does_not_render() -> None:
    async def body() -> None:
        site = Site()
        await site.scrape()
        assert site.renders.threads != [threading.current_thread().name]

    asyncio.run(body())
