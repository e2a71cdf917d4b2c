"""What a person is shown while a video arrives: a bar on a terminal, plain lines elsewhere, one summary at the end.

Knows fragments only: no HTTP, no file.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from hiar_client.fragments import Fragment

_LINE_EVERY_S = 2.0
_TICK_EVERY_S = 0.2
_BAR_CELLS = 24
_SILENT_S = 5.0
"""Much longer than a block plays: the server is stuck, or the connection is being resumed."""
_CLEAR = "\r\x1b[2K"


class Progress:
    """Counts fragments and tells of them in plain lines, at most one every two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, is_quiet: bool = False) -> None:
        """``is_quiet``: tell notes only."""
        self._stream = stream
        self._clock = clock
        self._is_quiet = is_quiet
        self._began_s = clock()
        self._told_s = self._began_s
        self._first_at_s = 0.0
        self._last_at_s = 0.0
        self._first_length_s = 0.0
        self._place: int | None = None
        self._is_silent = False
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._keep_ticking, daemon=True)
        self.num_blocks = 0
        self.num_frames = 0
        self.num_bytes = 0
        self.video_s = 0.0

    def __enter__(self) -> Self:
        self._ticking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Tell nothing more by itself."""
        self._over.set()
        self._ticking.join()

    @property
    def silent_s(self) -> float:
        """How long nothing came; there was something."""
        return self._clock() - self._last_at_s

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of video a second since the first fragment; None before the second one."""
        waited_s = self._last_at_s - self._first_at_s
        return (self.video_s - self._first_length_s) / waited_s if waited_s > 0 else None

    @property
    def first_after_s(self) -> float:
        """Seconds from the request to the first fragment; there was one."""
        return self._first_at_s - self._began_s

    def advance(self, fragment: Fragment) -> None:
        """Count a fragment."""
        self._last_at_s = self._clock()
        if self.num_blocks == 0:
            self._first_at_s, self._first_length_s = self._last_at_s, fragment.duration_s
        self.num_blocks += 1
        self.num_frames += fragment.num_frames
        self.num_bytes += len(fragment.data)
        self.video_s += fragment.duration_s
        self._is_silent = False
        self._tell()

    def wait(self, place: int) -> None:
        """Tell the video's place in the queue, from 1."""
        if place != self._place:
            self._place = place
            self._tell_place()

    def tick(self) -> None:
        """Tell of time that passes and brings nothing: once each time."""
        if self.num_blocks and self.silent_s > _SILENT_S and not self._is_silent:
            self._is_silent = True
            self.note(f"nothing came for {_SILENT_S:g} s: it is paused, or the server is stuck, or no longer there")

    def note(self, text: str) -> None:
        """Tell one line."""
        print(f"hiar: {text}", file=self._stream, flush=True)

    def state(self) -> str:
        """How far it is, in a few words."""
        factor = self.realtime_factor
        speed = f", {factor:.2f}x realtime" if factor else ""
        blocks = "1 block" if self.num_blocks == 1 else f"{self.num_blocks} blocks"
        return f"{self.video_s:.1f} s of video, {blocks}{speed}, first after {self.first_after_s:.2f} s"

    def summary(self, target: str) -> str:
        """What was done, in one line; there was at least one fragment."""
        factor = self.realtime_factor
        speed = f"; {factor:.2f}x realtime" if factor else ""
        last_s = self._last_at_s - self._began_s
        return (
            f"{target}: {self.video_s:.2f} s of video, {self.num_frames} frames, {bytes_words(self.num_bytes)}; "
            f"first fragment after {self.first_after_s:.2f} s, last after {last_s:.2f} s{speed}"
        )

    def _keep_ticking(self) -> None:
        while not self._over.wait(_TICK_EVERY_S):
            self.tick()

    def _tell(self) -> None:
        if self._is_quiet:
            return
        if self.num_blocks == 1 or self._clock() - self._told_s >= _LINE_EVERY_S:
            self._told_s = self._clock()
            self.note(self.state())

    def _tell_place(self) -> None:
        if not self._is_quiet:
            self.note(f"waiting, place {self._place} in the queue")


class ProgressBar(Progress):
    """The same on a terminal: one line that moves, also while nothing comes."""

    def __init__(self, stream: TextIO, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._seconds = seconds
        self._lock = threading.Lock()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the bar."""
        super().__exit__(kind, error, at)
        self._write(_CLEAR)

    def tick(self) -> None:
        """Draw it anew."""
        self._write(_CLEAR + self.line())

    def note(self, text: str) -> None:
        """Tell one line above the bar."""
        self._write(f"{_CLEAR}hiar: {text}\n{self.line()}")

    def line(self) -> str:
        """The bar as it is now, no wider than the terminal."""
        width = shutil.get_terminal_size().columns - 1
        if self.num_blocks == 0:
            place = "the first block" if self._place is None else f"a place: {self._place} in the queue"
            return f"waiting for {place}, {self._clock() - self._began_s:.0f} s"[:width]
        words = self.state()
        if self.silent_s > _SILENT_S:
            words = f"nothing came for {self.silent_s:.0f} s; {words}"
        if self._seconds is None:
            return words[:width]
        done = min(1.0, self.video_s / self._seconds)
        full = round(done * _BAR_CELLS)
        return f"[{'#' * full}{'-' * (_BAR_CELLS - full)}] {done:4.0%} {words}"[:width]

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def _tell(self) -> None:
        self.tick()

    def _tell_place(self) -> None:
        self.tick()


def progress_on(stream: TextIO, seconds: float | None, *, is_quiet: bool = False) -> Progress:
    """A bar if ``stream`` is a terminal that a person looks at, else plain lines."""
    if stream.isatty() and not is_quiet and "CI" not in os.environ and os.environ.get("TERM") != "dumb":
        return ProgressBar(stream, seconds)
    return Progress(stream, is_quiet=is_quiet)


def bytes_words(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
