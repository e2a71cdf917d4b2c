"""The process that workers are forked from: it imports once, in seconds, what every worker needs.

It ends before this process does, and with it however it ends: the kernel kills it together with the thread that
started it (``engine.stage.tether``), which therefore lives as long as this process. Knows no worker.
"""

import asyncio
import atexit
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.util import get_temp_dir

from engine.engine_config import EngineConfig
from engine.errors import StartError
from engine.fleet.scratch import scratch_folder
from engine.messages import FRONT_PID


def fork_server(config: EngineConfig) -> ForkServerContext:
    """Makes processes by forking one that imports, once, what every worker needs."""
    needs_text = config.manifest.text is not None and config.recording_file is None and config.rehearsal is None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.stage.preload", *(["engine.model.text"] if needs_text else [])])
    return context


async def prepare_workers(config: EngineConfig) -> None:
    """Have what workers are forked from import its modules, which takes seconds: the first worker of a process would
    otherwise wait for them, and the event loop with it.

    When it is cancelled nobody waits for the imports.

    Raises:
        OSError: there is no process; ``EOFError`` likewise.
        StartError: no temporary folder can be made, or the process ends early: it imports the main script, too, which
            must not start an engine again.
    """
    _keep_sockets_in_our_folder()
    forked: Future[None] = Future()
    forked.set_running_or_notify_cancel()

    def fork() -> None:
        try:
            _fork_first(fork_server(config))
        except (OSError, EOFError, StartError, RuntimeError) as error:
            forked.set_exception(error)
        else:
            forked.set_result(None)

    _starting_thread().put(fork)
    await asyncio.wrap_future(forked)


def _fork_first(context: ForkServerContext) -> None:
    """Start the server and fork a process that does nothing but say which one it was forked from."""
    os.environ[FRONT_PID] = str(os.getpid())
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[FRONT_PID]
    ours, theirs = context.Pipe(duplex=False)
    first = context.Process(target=_tell_parent, args=(theirs,), name="hiar-first-fork", daemon=True)
    with ours:
        with theirs:
            first.start()
        first.join()
        _check_end(first.exitcode)
        _end_at_exit(ours.recv())


@cache
def _starting_thread() -> "queue.SimpleQueue[Callable[[], None]]":
    """The one thread of this process that starts the server. It takes work for ever."""
    work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run() -> None:
        while True:
            work.get()()

    threading.Thread(target=run, name="fork-server", daemon=True).start()
    return work


@cache
def _keep_sockets_in_our_folder() -> None:
    """Have multiprocessing make its folder in one of ours: what a killed process leaves is found there later.

    It asks ``tempfile`` for a place, once in the life of a process. Raises ``StartError`` without a place.
    """
    folder = scratch_folder(for_sockets=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        get_temp_dir()
    finally:
        tempfile.tempdir = before


@cache
def _end_at_exit(pid: int) -> None:
    """End the server with this id before this process exits."""
    atexit.register(_end, pid)


def _end(pid: int) -> None:
    """End the server and wait until it is gone; multiprocessing, which may start another one, reaps it."""
    with suppress(ChildProcessError):  # it has ended before, and another one has taken its place
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _tell_parent(connection: Connection) -> None:
    """All that the first fork does."""
    connection.send(os.getppid())


def _check_end(exit_code: int | None) -> None:
    if exit_code != 0:
        raise StartError(
            f"the first worker process ended with exit code {exit_code} while it imported its modules; a script that "
            'starts an engine does so under if __name__ == "__main__", because its workers import it'
        )
