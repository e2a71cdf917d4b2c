"""What workers did and when: the record, and the one timer that fills it.

Times are seconds of the host's monotonic clock, so the spans of all workers of one host share an axis; those of other
nodes are put on the front's when they arrive (``engine.fleet.clocks``). Knows no device: who times work that runs
behind the host's back waits for it first.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

MAX_SPANS = 4096
"""Spans a timer keeps until they are taken; older ones are dropped."""


class Phase(StrEnum):
    """What a worker can be busy with, or waiting for."""

    DENOISE = "denoise"
    CACHE = "cache"
    RECEIVE = "receive"
    """Waiting for latents that a ticket announced."""
    SEND = "send"
    DECODE = "decode"
    ENCODE = "encode"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One phase of one block. Spans of a fused forward share their times."""

    phase: Phase
    rank: int
    stage: int | None
    """Denoise stage; None for phases outside one."""
    video: str
    block: int
    """-1 for a phase of no block."""
    began_s: float
    ended_s: float
    num_bytes: int = 0
    """What was sent or received; 0 for other phases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rests:
    """Seconds that a worker's compute thread did nothing, by cause."""

    input_s: float = 0.0
    """Latents of a known block were still to come."""
    output_s: float = 0.0
    """The video encoder was full."""
    none_s: float = 0.0
    """There was no work."""


class Timer:
    """Times the phases of one worker; cheap enough to stay on. Threads may share it, but for rests."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._spans: deque[Span] = deque(maxlen=MAX_SPANS)
        self._rests = Rests()

    def add(
        self,
        phase: Phase,
        video: str,
        block: int,
        began_s: float,
        *,
        stage: int | None = None,
        ended_s: float | None = None,
        num_bytes: int = 0,
    ) -> None:
        """Record a phase from ``began_s`` (``time.monotonic``) to ``ended_s``, or to now."""
        self._spans.append(
            Span(
                phase=phase,
                rank=self._rank,
                stage=stage,
                video=video,
                block=block,
                began_s=began_s,
                ended_s=time.monotonic() if ended_s is None else ended_s,
                num_bytes=num_bytes,
            )
        )

    @contextmanager
    def timed(self, phase: Phase, video: str, block: int) -> Iterator[None]:
        """Record the body."""
        began_s = time.monotonic()
        yield
        self.add(phase, video, block, began_s)

    def take(self) -> tuple[Span, ...]:
        """The spans since the last call, oldest first."""
        taken = []
        while self._spans:
            taken.append(self._spans.popleft())
        return tuple(taken)

    def rest(self, *, input_s: float = 0.0, output_s: float = 0.0, none_s: float = 0.0) -> None:
        """Add to the rests."""
        rests = self._rests
        self._rests = Rests(
            input_s=rests.input_s + input_s, output_s=rests.output_s + output_s, none_s=rests.none_s + none_s
        )

    def take_rests(self) -> Rests:
        """The rests since the last call."""
        taken, self._rests = self._rests, Rests()
        return taken
