"""Who holds which video where several servers share a database: a lease each, renewed by a heartbeat.

A server holds all videos whose rows name it, for as long as its own row says, by the database's clock. When that is
over any other takes them, in one statement, so that one server gets each. Who was late finds out at its next heartbeat,
and what it still writes spoils nothing: its files are its own (``journal``), and it does not end rows of another's.

A lease does not have to run out where it is certain that its server is dead: see ``presence``.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, and_, delete, insert, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from server.videos.store.presence import Presence
from server.videos.store.rows import VideoRow, video_of
from server.videos.store.schema import holders, videos

LEASE_S = 10.0
BEAT_S = 2.0
CLOCKS = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP(NOW(3))",
    "mariadb": "SELECT UNIX_TIMESTAMP(NOW(3))",
}
"""What tells the time, by the kind of database."""
_log = logging.getLogger(__name__)


class Leases:
    """This server's. Each call is a transaction; raises ``sqlalchemy.exc.SQLAlchemyError``."""

    def __init__(self, database: Engine, *, is_alone: bool, seen_in: Path | None = None) -> None:
        """``is_alone``: no other server can be at work on this database. ``seen_in``: where servers of this machine see
        each other; None for nowhere. Raises ``OSError`` where that cannot be written.
        """
        self._database, self._is_alone = database, is_alone
        self.holder = secrets.token_hex(16)
        """This process's name."""
        self._presence = None if seen_in is None else Presence(seen_in, self.holder)
        self.url = ""
        """Where others reach it."""

    def renew(self) -> frozenset[str]:
        """Be at work, and go on holding what is held; returns that."""
        with self._database.begin() as connection:
            until = _now(connection) + LEASE_S
            mine = update(holders).where(holders.c.id == self.holder)
            if connection.execute(mine.values(until=until)).rowcount == 0:
                connection.execute(insert(holders).values(id=self.holder, url=self.url, until=until))
            return self._held(connection)

    def take(self) -> list[VideoRow]:
        """Take the videos that nobody holds any more, the oldest first."""
        dead = self._dead()
        with self._database.begin() as connection:
            connection.execute(delete(holders).where(holders.c.id.in_(dead)))
            before = self._held(connection)
            gone = videos.c.holder.not_in(select(holders.c.id).where(holders.c.until > _now(connection)))
            others = videos.c.holder != self.holder
            free = or_(videos.c.holder.is_(None), others if self._is_alone else and_(gone, others))
            connection.execute(update(videos).where(videos.c.ended_at.is_(None), free).values(holder=self.holder))
            wanted = select(videos).where(videos.c.holder == self.holder, videos.c.ended_at.is_(None))
            found = [video_of(row) for row in connection.execute(wanted.order_by(videos.c.created_at, videos.c.id))]
            connection.execute(delete(holders).where(holders.c.until < _now(connection) - 100 * LEASE_S))
        for holder in dead:
            assert self._presence is not None
            self._presence.forget(holder)
        return [row for row in found if row.id not in before]

    def holder_url(self, video_id: str) -> str | None:
        """Where the server is at work that holds a video; None while none is."""
        with self._database.begin() as connection:
            alive = holders.c.until > _now(connection)
            wanted = select(holders.c.url).join(videos, videos.c.holder == holders.c.id)
            found = connection.scalar(wanted.where(videos.c.id == video_id, alive))
        return None if found is None else str(found)

    def end(self) -> None:
        """Be at work no more: others may take what is held at once."""
        with self._database.begin() as connection:
            connection.execute(delete(holders).where(holders.c.id == self.holder))
        if self._presence is not None:
            self._presence.leave()

    def _dead(self) -> list[str]:
        try:
            return [] if self._presence is None else self._presence.dead()
        except OSError as error:
            _log.warning("whether other servers of this machine live cannot be seen: %s", error)
            return []

    def _held(self, connection: Connection) -> frozenset[str]:
        return frozenset(
            connection.scalars(select(videos.c.id).where(videos.c.holder == self.holder, videos.c.ended_at.is_(None)))
        )


class Heartbeat:
    """Renews leases on a thread of its own, whatever the event loop is busy with."""

    def __init__(
        self, leases: Leases, loop: asyncio.AbstractEventLoop, on_held: Callable[[frozenset[str]], None]
    ) -> None:
        """``on_held`` is told on ``loop`` what is held, after each beat that reached the database."""
        self._leases, self._loop, self._on_held = leases, loop, on_held
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hiar-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                self._loop.call_soon_threadsafe(self._on_held, self._leases.renew())
            except SQLAlchemyError as error:
                _log.error("the lease of running videos cannot be renewed: %s", error)


def _now(connection: Connection) -> float:
    """By the database's clock: seconds of Unix time."""
    return float(connection.scalar(text(CLOCKS[connection.dialect.name])))
