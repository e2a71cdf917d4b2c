"""What workers of another node measured, on the clock of this host.

Monotonic clocks of two hosts have no zero in common. A message arrives a moment after the last span in it has ended, so
the least difference that was seen is that of the clocks, and the quickest way.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from engine.messages import Beat, FromWorker, Idle

DRIFT = 1e-4
"""By how much two clocks may differ in rate."""


class ClockOfNode:
    """What to add to times of a node, as far as its messages tell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives monotonic seconds of this host."""
        self._clock = clock
        self._ahead_s: float | None = None
        self._known_at = 0.0

    def on_ours(self, message: FromWorker) -> FromWorker:
        """A message that has just arrived, its spans on our clock."""
        if not isinstance(message, Beat | Idle) or not message.spans:
            return message
        ahead_s = self._note(max(span.ended_s for span in message.spans))
        spans = (
            replace(span, began_s=span.began_s + ahead_s, ended_s=span.ended_s + ahead_s) for span in message.spans
        )
        return replace(message, spans=tuple(spans))

    def _note(self, ended_s: float) -> float:
        now = self._clock()
        seen_s, known_s = now - ended_s, self._ahead_s
        drifted_s = DRIFT * (now - self._known_at)
        self._ahead_s = seen_s if known_s is None else min(seen_s, known_s + drifted_s)
        self._known_at = now
        return self._ahead_s
