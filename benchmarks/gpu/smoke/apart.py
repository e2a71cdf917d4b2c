"""Runs a function in a process of its own: it can be ended when it stands still, and takes no device's state along."""

import importlib.util
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, TypeVar

Result = TypeVar("Result")

KILL_S = 10.0
"""What a killed process gets to end: the driver frees what it held before it is gone."""


class ApartError(Exception):
    """The function raised, or its process ended without an answer."""


@dataclass(frozen=True)
class Raised:
    """What came in place of a result."""

    sentence: str


def apart(function: Callable[..., Result], *arguments: Any, limit_s: float) -> Result:
    """The result of ``function``, which a module must define, as must everything that goes in and out be pickled.

    When this returns, the process is gone, and with it what it held of a device.

    Raises:
        TimeoutError: it took longer than ``limit_s``; its process was killed.
        ApartError: it raised, or its process died.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_s):
            raise TimeoutError(f"it was not done after {limit_s:.0f} s")
        answer = receiver.recv()
    except EOFError:
        process.join(KILL_S)
        raise ApartError(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join(KILL_S)  # not for ever: one that waits inside a broken driver cannot be killed
        receiver.close()
    if isinstance(answer, Raised):
        raise ApartError(answer.sentence)
    result: Result = answer
    return result


def is_missing(name: str) -> bool:
    """Whether a package is not installed."""
    return importlib.util.find_spec(name) is None


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in names if is_missing(name)]


def _context() -> ForkServerContext:
    """As the engine makes its workers: imports are made once, in a process that opens no device."""
    context = multiprocessing.get_context("forkserver")
    heavy = [] if is_missing("transformers") else ["engine.model.text"]
    context.set_forkserver_preload(["engine.stage.preload", *heavy])
    return context


def _work(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: Any = function(*arguments)
    except Exception as error:  # noqa: BLE001 - it is told to the process that asked
        traceback.print_exc()
        answer = Raised(f"{type(error).__name__}: {error}")
    sender.send(answer)


def _end_with_parent() -> None:
    """End this process when the one that asked is gone, however that ended: it would keep the device."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
