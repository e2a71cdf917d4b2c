"""Temporary folders of the front, which outlive it only until the next one starts.

A folder is removed when its process exits. One that was killed leaves it behind, so each names its owner: the process
id, when that process started, and the namespace that the id belongs to. What the owner of one namespace left nobody in
another can tell from a folder in use, so it stays. Knows no worker.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path

from engine.errors import StartError

logger = logging.getLogger(__name__)

PREFIX = "hiar-"
"""Short: names of sockets in such a folder may have 107 letters."""
OWNER = "owner"
PROC = Path("/proc")
AFTER_MULTIPROCESSING = -200
"""Its own folder may be in ours, and it complains about one that is gone; it removes that at -100."""


def scratch_folder() -> Path:
    """A new folder, after those of dead processes are removed. Raises ``StartError`` where none can be made."""
    try:
        for folder in abandoned(Path(tempfile.gettempdir())):
            logger.info("removing %s: its process is gone", folder)
            shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        Finalize(None, remove, args=(folder,), exitpriority=AFTER_MULTIPROCESSING)
        (folder / OWNER).write_text(_name_of(os.getpid()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"no temporary folder can be made: {reason}; TMPDIR names where one may be") from error
    return folder


def remove(folder: Path) -> None:
    """Remove a folder of this process, if it is still there."""
    shutil.rmtree(folder, ignore_errors=True)


def abandoned(place: Path) -> Iterator[Path]:
    """Our folders in a place whose process is dead: of this user, and of a process that could be seen from here."""
    with os.scandir(place) as entries:
        for entry in entries:
            ours = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if ours and entry.stat(follow_symlinks=False).st_uid == os.getuid() and _is_dead(Path(entry.path, OWNER)):
                yield Path(entry.path)


def _is_dead(owner: Path) -> bool:
    """Whether the process that a file names has ended; a folder without the file may be about to get it."""
    try:
        namespace, pid, started = owner.read_text().split()
        return namespace == _namespace() and started != _started(int(pid))
    except (OSError, ValueError):
        return False


def _name_of(pid: int) -> str:
    return f"{_namespace()} {pid} {_started(pid)}"


def _namespace() -> str:
    """Of process ids; containers that share a temporary folder have different ones."""
    return (PROC / "self" / "ns" / "pid").readlink().name


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None if it has ended. A later one may have its id."""
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in {"Z", "X"} else fields[18]
