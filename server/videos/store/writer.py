"""Writes what videos make to their files, on a thread of its own: in groups, so that a slow disk is told less often.

What was written outlives the process at once. The machine's end it outlives after the next ``sync``, which comes once a
second at most while blocks come, and before a video is told to have ended.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from server.videos.store.folders import Appender, Folder

SYNC_S = 1.0
"""Between two syncs of a file."""
_log = logging.getLogger(__name__)


@dataclass
class Life:
    """What one process writes of a video. The writer's thread alone looks at ``appender``."""

    video_id: str
    on_written: Callable[[int], None]
    """Told on the writer's thread: so many blocks more are written."""
    on_failed: Callable[[OSError], None]
    """Told there too, once; nothing more is written then."""
    appender: Appender | None = None
    has_failed: bool = False


@dataclass
class _Order:
    life: Life
    data: bytes = b""
    num_blocks: int = 0
    done: "Future[None] | None" = None
    """Is told when all before it is written and synced."""
    is_last: bool = False


@dataclass
class _Group:
    """Orders of one video that are carried out together."""

    orders: list[_Order] = field(default_factory=list)


class Writer:
    """The thread, and the line in front of it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._line: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._dirty: dict[str, Life] = {}
        self._synced_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hiar-writer", daemon=True)
        self._thread.start()

    def write(self, life: Life, data: bytes, num_blocks: int = 0) -> None:
        """Write a record, soon. Does not wait."""
        self._line.put(_Order(life, data, num_blocks))

    def flush(self, life: Life, *, is_last: bool = False) -> "Future[None]":
        """What is done when all before it is written and synced, or when writing failed."""
        done: Future[None] = Future()
        self._line.put(_Order(life, done=done, is_last=is_last))
        return done

    def stop(self) -> None:
        """Write what is in the line, and end."""
        self._line.put(None)
        self._thread.join()

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            orders = self._next()
            goes_on = None not in orders
            groups: dict[str, _Group] = {}
            for order in orders:
                if order is not None:
                    groups.setdefault(order.life.video_id, _Group()).orders.append(order)
            for group in groups.values():
                self._carry_out(group)
            self._sync_in_time(now=not goes_on)

    def _next(self) -> list[_Order | None]:
        """All that waits; or nothing, where it is time to sync before more comes."""
        try:
            orders = [self._line.get(timeout=SYNC_S if self._dirty else None)]
        except queue.Empty:
            return []
        while not self._line.empty():
            orders.append(self._line.get())
        return orders

    def _carry_out(self, group: _Group) -> None:
        life, data = group.orders[0].life, b"".join(order.data for order in group.orders)
        try:
            if data and not life.has_failed:
                self._append(life, data)
                if (num_blocks := sum(order.num_blocks for order in group.orders)) > 0:
                    life.on_written(num_blocks)
            if any(order.done is not None for order in group.orders):
                self._sync(life)
        except OSError as error:
            self._fail(life, error)
        if group.orders[-1].is_last and life.appender is not None:
            life.appender.close()
            life.appender = None
        for order in group.orders:
            if order.done is not None:
                order.done.set_result(None)

    def _append(self, life: Life, data: bytes) -> None:
        if life.appender is None:
            life.appender = self._folder.begin(life.video_id)
        life.appender.append(data)
        self._dirty[life.video_id] = life

    def _sync(self, life: Life) -> None:
        if life.appender is not None:
            life.appender.sync()
        self._dirty.pop(life.video_id, None)

    def _sync_in_time(self, *, now: bool) -> None:
        if not now and time.monotonic() < self._synced_at + SYNC_S:
            return
        for life in list(self._dirty.values()):
            try:
                self._sync(life)
            except OSError as error:
                self._fail(life, error)
        self._synced_at = time.monotonic()

    def _fail(self, life: Life, error: OSError) -> None:
        _log.error("video %s cannot be stored: %s", life.video_id, error)
        self._dirty.pop(life.video_id, None)
        if not life.has_failed:
            life.has_failed = True
            life.on_failed(error)
