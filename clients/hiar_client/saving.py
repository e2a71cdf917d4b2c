"""Writes a video into a file while it comes, so that whatever happens, what is there plays."""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from hiar_client.fragments import End, Fragment
from hiar_client.reader import Reader


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was written."""

    num_blocks: int
    num_frames: int
    num_bytes: int
    duration_s: float
    end: End | None


class Target:
    """A file that a video is written to."""

    def __init__(self, path: "str | os.PathLike[str] | BinaryIO", reader: Reader) -> None:
        self._reader = reader
        self._stack = ExitStack()
        self._path = Path(path) if isinstance(path, str | os.PathLike) else None
        self._part = None if self._path is None else _beside(self._path)
        self._file = path if not isinstance(path, str | os.PathLike) else None
        self._num_blocks = self._num_frames = self._num_bytes = 0
        self._duration_s = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._part is not None:
                self._file = stack.enter_context(self._part.open("wb"))
            self._put(self._reader.init_segment)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._stack.close()
            return
        with suppress(OSError):  # what could not be written is known
            self._stack.close()
        if self._part is not None:
            self._leave_part(error)

    def write(self, fragment: Fragment) -> None:
        """Put it behind the last one."""
        self._put(fragment.data)
        self._num_blocks += 1
        self._num_frames += fragment.num_frames
        self._duration_s += fragment.duration_s

    def done(self) -> Saved:
        """Nothing more comes: give the file its name."""
        self._stack.close()
        if self._path is not None and self._part is not None and self._part != self._path:
            self._part.replace(self._path)
            self._part = None
        return Saved(
            num_blocks=self._num_blocks,
            num_frames=self._num_frames,
            num_bytes=self._num_bytes,
            duration_s=self._duration_s,
            end=self._reader.end,
        )

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        self._num_bytes += len(data)

    def _leave_part(self, error: BaseException) -> None:
        assert self._part is not None
        if self._num_blocks or self._part == self._path:
            error.add_note(f"{self._duration_s:.2f} s of video are in {self._part} and play")
        else:
            self._part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """Where to write until it is whole: a pipe or a device has to be written itself."""
    return path if path.exists() and not path.is_file() else Path(f"{path}.part")
