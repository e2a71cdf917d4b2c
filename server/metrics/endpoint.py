"""Serves `/metrics`: on the application, or on a port of its own.

Prometheus's text format, or OpenMetrics for those who ask for it. The engine is read on its event loop, where that is
safe; the text, which takes longer, is made in a thread, and serves all who ask within a second.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.metrics.families import Families
from server.metrics.readings import Readings

PATH = "/metrics"


class MetricsRoute:
    """The answer to a scrape."""

    def __init__(
        self, families: Families, readings: Readings, keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``keep_s``: how long a text is good for."""
        self._families, self._readings = families, readings
        self._keep_s, self._clock = keep_s, clock
        self._rendering = asyncio.Lock()
        self._kept: dict[str, tuple[float, bytes]] = {}
        """By content type: until when, and the text."""

    async def metrics(self, request: Request) -> Response:
        """All families, up to date or nearly."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._rendering:
            text = await self._text(encode, content_type)
        return Response(text, headers={"Content-Type": content_type})

    async def _text(self, encode: Callable[[CollectorRegistry], bytes], content_type: str) -> bytes:
        now = self._clock()
        self._kept = {kind: kept for kind, kept in self._kept.items() if now < kept[0]}
        if content_type in self._kept:
            return self._kept[content_type][1]
        self._readings.take()
        text = await asyncio.to_thread(encode, self._families.registry)
        self._kept[content_type] = now + self._keep_s, text
        return text


def metrics_app(route: MetricsRoute) -> Starlette:
    """An application that serves nothing else, for a port of its own."""
    return Starlette(routes=[Route(PATH, route.metrics)])


class SideServer(uvicorn.Server):
    """Serves beside the main server, which alone takes signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield
