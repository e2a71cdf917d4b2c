"""Where video goes: a file with an index in its end, or a pipe. What has been written can be played at any moment.

Knows no HTTP; tells no one of anything.
"""

import os
import re
import stat
import sys
from math import ceil
from pathlib import Path
from typing import BinaryIO, Protocol

from hiar_client.boxes import split, timescale
from hiar_client.cli.exits import UsageError
from hiar_client.fragments import Fragment
from hiar_client.mp4_index import Place, random_access, room_for, seek_index, start_of

_NAME_LENGTH_MAX = 60
_ENDLESS_REFERENCES = 512
"""Of the index of a video whose length nobody knows: 6 kB of the file."""
_REFERENCES_A_SECOND = 2


class Output(Protocol):
    """What takes the parts of a video in turn. Raises ``OSError``."""

    name: str
    """For people."""

    def begin(self, init_segment: bytes) -> None:
        """Take what stands before the first fragment."""

    def add(self, fragment: Fragment) -> None:
        """Take the next fragment."""

    def finish(self) -> None:
        """Nothing more comes; what has come stays."""


class PipeOutput:
    """Standard output."""

    name = "stdout"

    def begin(self, init_segment: bytes) -> None:
        """Write it on."""
        self._write(init_segment)

    def add(self, fragment: Fragment) -> None:
        """Write it on."""
        self._write(fragment.data)

    def finish(self) -> None:
        """Nothing is held back."""

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


class FileOutput:
    """A file, which is opened when there is video: a refused request must not empty an older one."""

    def __init__(self, path: Path, seconds: float | None, *, may_replace: bool) -> None:
        """Without ``may_replace`` it takes a free name like that. ``seconds``: of the video, where that is known."""
        self.name = str(path)
        self._path, self._may_replace = path, may_replace
        count = _ENDLESS_REFERENCES if seconds is None else ceil(seconds * _REFERENCES_A_SECOND) + 2
        self._num_references = min(count, _ENDLESS_REFERENCES)
        self._file: BinaryIO | None = None
        self._room = b""
        self._room_at = self._end = 0
        self._timescale = 1
        self._track = 1
        self._places: list[Place] = []

    def begin(self, init_segment: bytes) -> None:
        """Open the file and write it."""
        self._file = self._open()
        moov = next(box for box in split(init_segment) if box.kind == "moov")
        self._timescale = timescale(moov)
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._room, self._room_at = room_for(self._num_references), len(init_segment)
        self._append(init_segment + self._room)

    def add(self, fragment: Fragment) -> None:
        """Write it, and remember where."""
        self._track, start_ticks = start_of(fragment.data)
        num_ticks = round(fragment.duration_s * self._timescale)
        place = Place(offset=self._end, num_bytes=len(fragment.data), start_ticks=start_ticks, num_ticks=num_ticks)
        self._append(fragment.data)
        self._places.append(place)

    def finish(self) -> None:
        """Drop half a fragment, write the index, close."""
        if self._file is None:
            return
        with self._file as file:
            if self._room:
                file.truncate(self._end)
            if self._room and self._places:
                self._write_index(file)

    def _write_index(self, file: BinaryIO) -> None:
        file.seek(self._room_at)
        file.write(seek_index(self._places, self._track, self._timescale, len(self._room)))
        file.seek(self._end)
        file.write(random_access(self._places, self._track))

    def _append(self, data: bytes) -> None:
        assert self._file is not None, "begin comes first"
        self._file.write(data)
        self._file.flush()
        self._end += len(data)

    def _open(self) -> BinaryIO:
        if self._may_replace:
            return self._path.open("wb")
        for number in range(1, 10_000):
            path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
            try:
                file = path.open("xb")
            except FileExistsError:
                continue
            self.name = str(path)
            return file
        raise FileExistsError(0, "too many files have such names")


def output_of(name: str | None, default: Path, seconds: float | None, *, may_replace: bool) -> Output:
    """What ``-o`` names, or a file of the default name. Raises ``UsageError`` if that cannot be written."""
    if name == "-":
        if sys.stdout.isatty():
            raise UsageError(
                "video would fill this terminal; pipe it into a player, as in '-o - | ffplay -', or name a file"
            )
        return PipeOutput()
    if name is None:
        return FileOutput(default, seconds, may_replace=may_replace)
    path = Path(name)
    if not path.resolve().parent.is_dir():
        raise UsageError(f"the folder of {name} does not exist")
    return FileOutput(path, seconds, may_replace=True)


def name_of(prompt: str) -> Path:
    """A file name that tells the prompt: ``a-large-red-circle.mp4``."""
    words = re.findall(r"\w+", prompt.lower())
    name = ""
    for word in words:
        if len(name) + len(word) >= _NAME_LENGTH_MAX:
            break
        name = f"{name}-{word}" if name else word
    return Path(f"{name or 'video'}.mp4")
