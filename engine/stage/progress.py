"""What a worker tells of its start while it is under way: bytes read, steps done. Often enough for a person, not more.

Knows no pipe and nothing of what is read or done.
"""

import time
from collections.abc import Callable
from pathlib import Path

from engine.messages import StartPhase, StartProgress

TELL_EVERY_S = 0.5

Tell = Callable[[StartProgress], None]


class Progress:
    """Tells how far the start of a worker is."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives monotonic seconds."""
        self._tell, self._clock = tell, clock
        self._told: StartProgress | None = None
        self._told_at = 0.0

    def reading(self, path: Path, done_bytes: int, total_bytes: int) -> None:
        """So many bytes of what is wanted of a file are read."""
        self._say(StartProgress(phase=StartPhase.READING, what=path.name, done=done_bytes, total=total_bytes))

    def step(self, phase: StartPhase, done: int, total: int) -> None:
        """Of the steps of a phase so many are done."""
        self._say(StartProgress(phase=phase, what="", done=done, total=total))

    def _say(self, progress: StartProgress) -> None:
        """Tell the begin and the end of everything, and something in between now and then."""
        now, told = self._clock(), self._told
        is_new = told is None or (told.phase, told.what) != (progress.phase, progress.what)
        if is_new or progress.done == progress.total or now - self._told_at >= TELL_EVERY_S:
            self._told, self._told_at = progress, now
            self._tell(progress)
