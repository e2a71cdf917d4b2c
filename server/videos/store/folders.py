"""Where files of videos lie: a folder of this machine, or whatever fsspec can reach. Bytes alone.

A folder's files are appended to, and what was written outlives the process at once and the machine after ``sync``. An
object store appends nothing: there every group of records is an object of its own, whole as soon as it is there.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from server.videos.store.journal import Source


class Appender(Protocol):
    """A life of a video that is being written."""

    def append(self, data: bytes) -> None:
        """Behind all before; when it returns, the end of this process loses nothing. Raises ``OSError``."""
        ...

    def sync(self) -> None:
        """Return when the end of the machine loses nothing. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Folder(Protocol):
    """Files by video."""

    def begin(self, video_id: str) -> Appender:
        """Begin another life of a video behind those that are there. Raises ``OSError``."""
        ...

    def sources(self, video_id: str) -> list[Source]:
        """Its files, in order. Raises ``OSError``."""
        ...

    def remove(self, video_id: str) -> None:
        """Remove its files, if there are any. Raises ``OSError``."""
        ...

    def names(self) -> list[str]:
        """The videos that have files. Raises ``OSError``."""
        ...


class _FileAppender:
    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._length, self._synced = 0, 0

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._length)  # half a record is of no use, and the disk may be full
            raise
        self._length += len(data)

    def sync(self) -> None:
        if self._synced < self._length:
            os.fdatasync(self._file.fileno())
            self._synced = self._length

    def close(self) -> None:
        self._file.close()


class LocalFolder:
    """A folder of this machine, or one that several machines mount."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError`` where it cannot be made."""
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, f"user {os.geteuid()} may not write to it", str(path))
        self._path = path

    def begin(self, video_id: str) -> Appender:
        """Begin another life of a video. Raises ``OSError``."""
        folder = self._path / video_id
        folder.mkdir(exist_ok=True)
        return _FileAppender(folder / f"{_next(_numbers(os.listdir(folder))):06}")

    def sources(self, video_id: str) -> list[Source]:
        """Its files, in order. Raises ``OSError``."""
        folder = self._path / video_id
        files = [folder / name for name in sorted(os.listdir(folder))] if folder.is_dir() else []
        return [Source(str(file), file.stat().st_size, _reading(file)) for file in files]

    def remove(self, video_id: str) -> None:
        """Remove its files. Raises ``OSError``."""
        if (folder := self._path / video_id).is_dir():
            shutil.rmtree(folder)

    def names(self) -> list[str]:
        """The videos that have files. Raises ``OSError``."""
        return os.listdir(self._path)


def _reading(file: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with file.open("rb", buffering=0) as opened:
            return os.pread(opened.fileno(), length, offset)

    return read


class _ObjectAppender:
    """Each group that is appended is one object."""

    def __init__(self, system: AbstractFileSystem, life: str) -> None:
        self._system, self._life, self._count = system, life, 0

    def append(self, data: bytes) -> None:
        self._system.pipe_file(f"{self._life}-{self._count:06}", data)
        self._count += 1

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class ObjectFolder:
    """A folder of an object store."""

    def __init__(self, system: AbstractFileSystem, path: str) -> None:
        self._system, self._path = system, path.rstrip("/")

    def begin(self, video_id: str) -> Appender:
        """Begin another life of a video. Raises ``OSError``."""
        lives = _numbers(name.partition("-")[0] for name in self._names(video_id))
        return _ObjectAppender(self._system, f"{self._path}/{video_id}/{_next(lives):06}")

    def sources(self, video_id: str) -> list[Source]:
        """Its objects, in order. Raises ``OSError``."""
        return [self._source(f"{self._path}/{video_id}/{name}") for name in sorted(self._names(video_id))]

    def remove(self, video_id: str) -> None:
        """Remove its objects. Raises ``OSError``."""
        if self._system.exists(f"{self._path}/{video_id}"):
            self._system.rm(f"{self._path}/{video_id}", recursive=True)

    def names(self) -> list[str]:
        """The videos that have objects. Raises ``OSError``."""
        return self._listed(self._path)

    def _names(self, video_id: str) -> list[str]:
        return self._listed(f"{self._path}/{video_id}")

    def _listed(self, path: str) -> list[str]:
        self._system.invalidate_cache(path)
        try:
            found = self._system.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [name.rstrip("/").rpartition("/")[2] for name in found]

    def _source(self, path: str) -> Source:
        def read(offset: int, length: int) -> bytes:
            return bytes(self._system.cat_file(path, start=offset, end=offset + length))

        return Source(path, int(self._system.size(path)), read)


def folder_of(url: str) -> Folder:
    """The folder that a URL of fsspec, or a path, names. Raises ``OSError``, ``ValueError`` or ``ImportError``."""
    system, path = fsspec.core.url_to_fs(url)
    return LocalFolder(Path(path)) if isinstance(system, LocalFileSystem) else ObjectFolder(system, path)


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(name) for name in names if name.isdecimal()]


def _next(numbers: list[int]) -> int:
    return max(numbers, default=-1) + 1
