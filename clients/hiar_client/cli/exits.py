"""How the command ends: its exit statuses, and how errors and signals become them."""

import signal
from types import FrameType
from typing import NoReturn

from hiar_client.errors import HiarError

DONE = 0
FAILED = 1
"""Refused, or there is nothing to show for it."""
USAGE = 2
CUT_SHORT = 3
"""There is video, but less than was asked for: the server stopped, failed or went away."""


class UsageError(Exception):
    """The command line says something that cannot be done; the message tells what to say instead."""


class Interrupted(KeyboardInterrupt):
    """A signal told the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number
        """As shells have it: 130 for Ctrl-C, 143 for SIGTERM."""


def stop_on_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise ``Interrupted`` in the main thread, unless who started us ignores them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def one_line(error: HiarError) -> str:
    """What went wrong, and when to ask again."""
    text = " ".join(error.message.split())
    if error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:g} s)"
    return f"{text} [{error.code}]"


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)
