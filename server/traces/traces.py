"""What the server has traced, and how it is sent: by OTLP over HTTP, in batches, from a thread of their own.

A request is a span as long as its answer. No span has a prompt, a key, an address as it was written, or anything that a
client is known by.
"""

import asyncio

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine import VideoHandle
from server.errors import ERROR_KEY
from server.http.exchange import exchange_of
from server.traces.spans import Spans
from server.traces.videos import VideoTrace

_METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
"""Another one may be any text."""
_LAST_SEND_S = 2.0


class Traces:
    """Used on the server's event loop."""

    def __init__(self) -> None:
        """Where to send, and how, is said by the environment's ``OTEL_...``."""
        self._provider = TracerProvider(shutdown_on_exit=False, resource=_resource())
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._spans = Spans(self._provider.get_tracer("hiar"))
        self._following: set[asyncio.Task[None]] = set()

    def requests(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application, so that each request is a span. Stands behind ``Envelope``."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            context = TraceContextTextMapPropagator().extract(dict(Headers(scope=scope)))
            span = self._spans.start("request", context=context, kind=SpanKind.SERVER)

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_status(span, message["status"])
                await send(message)

            try:
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    await app(scope, receive, send_noted)
            finally:
                _describe(span, scope)
                self._spans.end(span)

        return traced

    def follow(self, video: VideoHandle) -> None:
        """A video was asked for: trace it until it ends, below the request that is being answered."""
        task = asyncio.create_task(VideoTrace(self._spans, video).follow())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def close(self) -> None:
        """End what lasts, and send what is left, if the collector takes it soon."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        sending = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait({sending}, timeout=_LAST_SEND_S)
        if not sending.done():
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # it tries no more then
        await sending


def _resource() -> Resource:
    """The process; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` say more, and win."""
    return Resource({"service.name": "hiar-server"}).merge(OTELResourceDetector().detect())


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _describe(span: Span, scope: Scope) -> None:
    """Say what the request was, once a route has been found and all is noted."""
    exchange, error, route = exchange_of(scope), scope.get(ERROR_KEY), scope.get("route")
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    path = getattr(route, "path", None)
    span.update_name(method if path is None else f"{method} {path}")
    told = {
        "http.request.method": method,
        "http.route": path,
        "hiar.request_id": exchange.request_id,
        "hiar.video_id": exchange.plain_video_id,
        "hiar.end_reason": exchange.end_reason,
        "error.type": None if error is None else error.row.code,
    }
    span.set_attributes({name: value for name, value in told.items() if value is not None})
