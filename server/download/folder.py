"""The folder that a model is downloaded into: its lock, what is under way, and the mark of a complete one.

    FOLDER/.hiar-download.lock   held by the process that downloads; empty
    FOLDER/.hiar-download/       files under way; while it exists, ``hiar-server`` refuses the folder
    FOLDER/hiar.json             which preset it is of; a person may change it
    FOLDER/.complete             what was downloaded, as JSON; while it names a source, that is not fetched again

A file appears under its own name only when its checksum is right. Knows no hub.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import PARTIAL_NAME, PRESET_NAME
from server.download.hub import DownloadError, HubFile, Source

LOCK_NAME = ".hiar-download.lock"
COMPLETE_NAME = ".complete"


class ModelFolder:
    """A folder for one model. Writing raises ``OSError``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path / PARTIAL_NAME

    def holds(self, sources: Sequence[Source]) -> bool:
        """Whether all of ``sources`` were downloaded into the folder and their files are still there."""
        if self._partial.exists():
            return False
        records = {_key(record): record for record in self._records()}
        return all(self._is_there(records.get(_asked(source))) for source in sources)

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the only one who downloads into the folder. Calls ``on_wait`` once if another process does already."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK_NAME).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def missing(self, files: Sequence[HubFile]) -> list[HubFile]:
        """Those of ``files`` that are not in the folder, or are different there."""
        return [file for file in files if not file.is_intact(self.path / file.path)]

    def reserve(self, files: Sequence[HubFile]) -> None:
        """Mark the folder as incomplete. Raises ``DownloadError`` if ``files`` do not fit on its disk."""
        arrived_bytes = sum(self.partial(file).stat().st_size for file in files if self.partial(file).exists())
        needed_bytes = sum(file.num_bytes for file in files) - arrived_bytes
        free_bytes = shutil.disk_usage(self.path).free
        if needed_bytes > free_bytes:
            raise DownloadError(
                f"{self.path} has {readable(free_bytes)} free and {readable(needed_bytes)} are still to come: "
                "make room, or name another folder"
            )
        self._partial.mkdir(exist_ok=True)

    def partial(self, file: HubFile) -> Path:
        """Where ``file`` is while it is under way. Other content of the same name never continues it."""
        return self._partial / f"{file.checksum}.part"

    def place(self, file: HubFile) -> None:
        """Give a fetched file its name."""
        target = self.path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self.partial(file).replace(target)

    def tells(self, preset: str) -> bool:
        """Whether the folder says that it is of that preset, with or without changes."""
        try:
            content = json.loads((self.path / PRESET_NAME).read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
            return False
        return isinstance(content, dict) and content.get("preset") == preset

    def tell(self, preset: str) -> None:
        """Say which preset the folder is of; what it says of that one already stays."""
        if self.tells(preset):
            return
        draft = self.path / f".{PRESET_NAME}.part"
        _write_json(draft, {"preset": preset})
        draft.replace(self.path / PRESET_NAME)

    def finish(self, downloads: Sequence[tuple[Source, Sequence[HubFile]]]) -> None:
        """Mark the folder as complete."""
        records = {_key(record): record for record in self._records()}
        records |= {_asked(source): _record(source, files) for source, files in downloads}
        draft = self._partial / COMPLETE_NAME
        _write_json(draft, {"downloads": list(records.values())})
        draft.replace(self.path / COMPLETE_NAME)
        shutil.rmtree(self._partial)

    def _records(self) -> list[dict[str, Any]]:
        """What ``.complete`` tells; nothing if there is none that can be read, so that all is checked again."""
        try:
            content = json.loads((self.path / COMPLETE_NAME).read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return []
        records = content.get("downloads") if isinstance(content, dict) else None
        return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []

    def _is_there(self, record: dict[str, Any] | None) -> bool:
        files = record.get("files") if record else None
        if not isinstance(files, dict) or not files:
            return False
        paths = {self.path / name: facts for name, facts in files.items()}
        return all(path.is_file() and path.stat().st_size == facts["bytes"] for path, facts in paths.items())


def readable(num_bytes: int) -> str:
    """A size for a person: '5.7 GB'."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} bytes"


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with file.open("w") as out:
        json.dump(content, out, indent=1)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())


def _record(source: Source, files: Sequence[HubFile]) -> dict[str, Any]:
    return {
        "repo": source.repo,
        "revision": source.revision,
        "patterns": list(source.patterns),
        "commit": files[0].commit,
        "files": {file.path: {"bytes": file.num_bytes, "checksum": file.checksum} for file in files},
    }


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return (record.get("repo"), record.get("revision"), tuple(record.get("patterns", ())))


def _asked(source: Source) -> tuple[Any, ...]:
    return (source.repo, source.revision, source.patterns)
