"""What the command shows while a video arrives: a bar on a terminal, plain lines elsewhere, one summary at the end.

Knows fragments only: no HTTP, no file.
"""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Self, TextIO

from hiar_client.client import Fragment

_LINE_EVERY_S = 2.0


class Progress:
    """Counts fragments and tells of them in plain lines, at most one every two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began_s = clock()
        self._told_s = self._began_s
        self._first_at_s = 0.0
        self._last_at_s = 0.0
        self._first_length_s = 0.0
        self.num_blocks = 0
        self.num_frames = 0
        self.num_bytes = 0
        self.video_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was."""

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of video a second since the first fragment; None before the second one."""
        waited_s = self._last_at_s - self._first_at_s
        return (self.video_s - self._first_length_s) / waited_s if waited_s > 0 else None

    def advance(self, fragment: Fragment) -> None:
        """Count a fragment."""
        self._last_at_s = self._clock()
        if self.num_blocks == 0:
            self._first_at_s, self._first_length_s = self._last_at_s, fragment.duration_s
        self.num_blocks += 1
        self.num_frames += fragment.num_frames
        self.num_bytes += len(fragment.data)
        self.video_s += fragment.duration_s
        self._tell()

    def note(self, text: str) -> None:
        """Tell one line."""
        print(f"hiar: {text}", file=self._stream, flush=True)

    def state(self) -> str:
        """How far it is, in a few words."""
        factor = self.realtime_factor
        speed = f", {factor:.2f}x realtime" if factor else ""
        return f"{self.video_s:.1f} s of video{speed}, first after {self._first_at_s - self._began_s:.2f} s"

    def summary(self, target: str) -> str:
        """What was done, in one line; there was at least one fragment."""
        factor = self.realtime_factor
        speed = f"; {factor:.2f}x realtime" if factor else ""
        first_s, last_s = self._first_at_s - self._began_s, self._last_at_s - self._began_s
        size = f"{self.num_bytes / 1e6:.1f} MB" if self.num_bytes >= 1e6 else f"{self.num_bytes / 1e3:.0f} kB"
        return (
            f"{target}: {self.video_s:.2f} s of video, {self.num_frames} frames, {size}; "
            f"first fragment after {first_s:.2f} s, last after {last_s:.2f} s{speed}"
        )

    def _tell(self) -> None:
        if self.num_blocks == 1 or self._clock() - self._told_s >= _LINE_EVERY_S:
            self._told_s = self._clock()
            self.note(self.state())


class ProgressBar(Progress):
    """The same on a terminal: one line that moves. Needs rich."""

    def __init__(self, stream: TextIO, seconds: float | None) -> None:
        from rich.console import Console  # noqa: PLC0415 - no package that the client needs
        from rich.progress import BarColumn, SpinnerColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        super().__init__(stream)
        console = Console(file=stream)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30))
        self._bar = RichProgress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("waiting for the first block", total=seconds)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the bar."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """Tell one line above the bar."""
        self._bar.console.print(f"hiar: {text}", markup=False, highlight=False)

    def _tell(self) -> None:
        self._bar.update(self._task, description=self.state(), completed=self.video_s)


def progress_on(stream: TextIO, seconds: float | None) -> Progress:
    """A bar if ``stream`` is a terminal that a person looks at, and rich is there to draw it; else plain lines."""
    if stream.isatty() and "CI" not in os.environ and find_spec("rich") is not None:
        return ProgressBar(stream, seconds)
    return Progress(stream)
