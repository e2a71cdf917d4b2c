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
MAX_SOCKET_NAME = 107
"""Bytes that the kernel takes."""
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
"""Where sockets go if their names would be longer elsewhere; they take no room."""
_SOCKET_IN_PLACE = f"/{PREFIX}12345678/pymp-12345678/listener-12345678"
"""As multiprocessing names one in its folder in ours."""
OWNER = "owner"
PROC = Path("/proc")
AFTER_MULTIPROCESSING = -200
"""Its own folder may be in ours, and it complains about one that is gone; it removes that at -100."""


def scratch_folder(*, for_sockets: bool = False) -> Path:
    """A new folder, after those of dead processes are removed. Raises ``StartError`` where none can be made.

    Args:
        for_sockets: it will hold multiprocessing's, so its name must be short, wherever other files may be.
    """
    try:
        place = _place_of_sockets() if for_sockets else Path(tempfile.gettempdir())
        for folder in abandoned(place):
            logger.info("removing %s: its process is gone", folder)
            shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        Finalize(None, remove, args=(folder,), exitpriority=AFTER_MULTIPROCESSING)
        (folder / OWNER).write_text(_name_of(os.getpid()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"no temporary folder can be made: {reason}; TMPDIR names where one may be") from error
    return folder


def _place_of_sockets() -> Path:
    """The temporary place, or another where its name is too long. Raises ``StartError`` where there is none."""
    place = tempfile.gettempdir()
    num_bytes = len(os.fsencode(place))
    room = MAX_SOCKET_NAME - len(_SOCKET_IN_PLACE)
    if num_bytes <= room:
        return Path(place)
    short = next((other for other in SHORT_PLACES if os.access(other, os.W_OK | os.X_OK)), None)
    if short is None:
        raise StartError(
            f"TMPDIR is {place}, which has {num_bytes} bytes and leaves sockets in it no room for their names; "
            f"set it to a folder of {room} bytes at most"
        )
    logger.info("sockets lie in %s: TMPDIR, %s, is too long for their names", short, place)
    return Path(short)


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
