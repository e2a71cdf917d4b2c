"""Reading a video into a file or a pipe while it is made, and telling how that goes. Asks for no video itself."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from hiar_client.cli.exits import CUT_SHORT, DONE, FAILED, Interrupted, one_line
from hiar_client.cli.output import Output
from hiar_client.errors import HiarError
from hiar_client.progress import Progress, progress_on
from hiar_client.video import Video

_END_WORDS = {
    "limit": "it is as long as this server makes videos",
    "drain": "the server is being stopped",
    "cancelled": "someone cancelled it",
    "slow_client": "it was read too slowly",
    "pause_limit": "it was paused for too long",
}


def receive(
    ask: Callable[[Progress], Video], output: Output, options: argparse.Namespace, seconds: float | None
) -> int:
    """Read what ``ask`` gives into ``output``. ``seconds``: its length, where known. Returns the exit status."""
    progress = progress_on(sys.stderr, seconds, is_quiet=options.quiet)
    reading = _Reading(output, progress)
    with progress:
        status = reading.run(ask)
    if progress.num_blocks and options.json:
        print(json.dumps(reading.told(status)), file=sys.stderr if output.name == "stdout" else sys.stdout)
    elif progress.num_blocks and not options.quiet:
        print(progress.summary(output.name), file=sys.stderr)
    return status


class _Reading:
    """One video on its way."""

    def __init__(self, output: Output, progress: Progress) -> None:
        self._output, self._progress = output, progress
        self._video: Video | None = None

    def run(self, ask: Callable[[Progress], Video]) -> int:
        """Read to the end, or to whatever comes before it. Returns the exit status."""
        try:
            try:
                with ask(self._progress) as self._video:
                    return self._read(self._video)
            finally:
                self._output.finish()
        except Interrupted as signal:
            self._progress.note("stopped")
            return signal.status
        except BrokenPipeError:
            # The player at the other end was closed: that is how one stops watching.
            forget_stdout()
            self._progress.note("the reader closed the pipe")
            return DONE
        except OSError as error:
            self._progress.note(f"cannot write {self._output.name}: {error.strerror}")
            return FAILED
        except HiarError as error:
            self._progress.note(one_line(error))
            return CUT_SHORT if self._progress.num_blocks else FAILED

    def told(self, status: int) -> dict[str, object]:
        """What was done, for programs."""
        assert self._video is not None
        progress, end = self._progress, self._video.end
        return {
            "id": self._video.id,
            "file": self._output.name,
            "seconds": round(progress.video_s, 6),
            "blocks": progress.num_blocks,
            "frames": progress.num_frames,
            "bytes": progress.num_bytes,
            "first_fragment_s": round(progress.first_after_s, 3),
            "realtime_factor": progress.realtime_factor,
            "end_reason": None if end is None else end.reason,
            "exit_status": status,
        }

    def _read(self, video: Video) -> int:
        self._output.begin(video.init_segment)
        for fragment in video:
            self._output.add(fragment)
            self._progress.advance(fragment)
        if video.end is None or video.end.reason == "completed":
            return DONE
        why = _END_WORDS.get(video.end.reason)
        self._progress.note(f"the server ended the video: {why} [{video.end.reason}]" if why else video.end.reason)
        return CUT_SHORT


def forget_stdout() -> None:
    """Keep Python from writing what is left to a closed pipe at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
