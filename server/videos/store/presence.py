"""Which servers of this machine live: each has a file in the data folder that it keeps locked.

The kernel drops a lock with its process, so a lease whose server was killed can be taken over at once. It says nothing
of other machines, nor of this one before it was started again: their leases run out.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

_KERNEL = Path("/proc/sys/kernel/random/boot_id")
"""Another after each start of a machine."""


class Presence:
    """This server's file, and what those of others tell."""

    def __init__(self, folder: Path, holder: str) -> None:
        """Be seen as ``holder``. Raises ``OSError``."""
        self._folder, self._holder = folder, holder
        self._kernel = _KERNEL.read_text("ascii")
        folder.mkdir(parents=True, exist_ok=True)
        beginning = folder / f".{holder}"
        self._file = beginning.open("x", encoding="ascii")
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # workers do not inherit it
        self._file.write(self._kernel)
        self._file.flush()
        beginning.rename(folder / holder)  # who finds it finds it locked

    def dead(self) -> list[str]:
        """Holders of this machine whose process has ended. Raises ``OSError``."""
        names = (name for name in os.listdir(self._folder) if not name.startswith(".") and name != self._holder)
        return [name for name in names if self._is_dead(name)]

    def forget(self, holder: str) -> None:
        """Remove the file of a dead one."""
        (self._folder / holder).unlink(missing_ok=True)

    def leave(self) -> None:
        """Be seen no more."""
        self.forget(self._holder)
        self._file.close()

    def _is_dead(self, holder: str) -> bool:
        with suppress(FileNotFoundError, PermissionError), (self._folder / holder).open("r+", encoding="ascii") as file:
            return file.read() == self._kernel and _is_free(file)
        return False


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
