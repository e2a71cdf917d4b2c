"""Ties a process to the one that started it: the kernel ends both together, whatever they are doing."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int | None = None) -> None:
    """Have this process killed when the thread that started it ends. On Linux; elsewhere closed pipes must do.

    With ``parent_pid``, a parent that had ended before this was called is noticed too, and this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent_pid is not None and os.getppid() != parent_pid:
        os._exit(1)
