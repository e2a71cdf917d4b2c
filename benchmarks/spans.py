"""What the workers of an engine did, kept by an observer of it."""

import asyncio
import time

from engine import Observer
from engine.trace import Phase, Rests, Span

PASSES = (Phase.DENOISE, Phase.CACHE)
SPANS_TIMEOUT_S = 10.0
"""How long the last spans of a video may take to come in after its end."""


class SpanLog(Observer):
    """Keeps what the workers did."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def worker_worked(self, rank: int, spans: tuple[Span, ...], rests: Rests) -> None:
        """What a worker did since it was last heard of."""
        self._spans += spans

    async def all_of(self, video: str, num_passes: int) -> tuple[Span, ...]:
        """All spans of a video, with at least so many passes; the last come behind its end, and are waited for.

        Raises ``TimeoutError`` when they do not come.
        """
        give_up_at = time.monotonic() + SPANS_TIMEOUT_S
        while time.monotonic() < give_up_at:
            spans = tuple(span for span in self._spans if span.video == video)
            if sum(span.phase in PASSES for span in spans) >= num_passes:
                return spans
            await asyncio.sleep(0.01)
        raise TimeoutError(f"not all of {num_passes} passes were reported")
