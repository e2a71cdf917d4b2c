"""Serves `/metrics`: on the application, or on a port of its own.

Prometheus's text format, or OpenMetrics for those who ask for it. Runs on the engine's event loop, where reading the
engine is safe.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
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

    def __init__(self, families: Families, readings: Readings) -> None:
        self._families, self._readings = families, readings

    async def metrics(self, request: Request) -> Response:
        """All families, up to date."""
        self._readings.take()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._families.registry), headers={"Content-Type": content_type})


def metrics_app(route: MetricsRoute) -> Starlette:
    """An application that serves nothing else, for a port of its own."""
    return Starlette(routes=[Route(PATH, route.metrics)])


class SideServer(uvicorn.Server):
    """Serves beside the main server, which alone takes signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield
