"""Spans with times that no change of the wall clock bends: Unix time at the start, and what has passed since then."""

import time

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer

Attributes = dict[str, str | int | bool]


class Spans:
    """Makes spans. Their parents are spans, what a context says, or the request that is being answered."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._began_ns = time.time_ns() - time.monotonic_ns()

    def start(
        self,
        name: str,
        parent: Span | None = None,
        *,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """A span that begins now."""
        if parent is not None:
            context = trace.set_span_in_context(parent)
        return self._tracer.start_span(name, context, kind, start_time=self._now_ns())

    def tell(self, span: Span, event: str, attributes: Attributes) -> None:
        """Something happens while a span lasts."""
        span.add_event(event, attributes, self._now_ns())

    def end(self, span: Span) -> None:
        """It ends now."""
        span.end(self._now_ns())

    def _now_ns(self) -> int:
        return self._began_ns + time.monotonic_ns()
