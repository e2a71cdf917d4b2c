"""Rows of videos, receipts and secrets: what is asked of the database, in its own thread's words. Knows no file."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from server.videos.store.schema import receipts, secrets, videos


@dataclass(frozen=True, kw_only=True)
class VideoRow:
    """A video as the database has it."""

    id: str
    owner: str
    model: str
    created_at: float
    request: str
    """JSON."""
    ended_at: float | None = None
    """None: it is to go on."""
    ending: str | None = None
    """JSON: how it ended."""
    num_bytes: int = 0
    num_blocks: int | None = None
    """That it is to have; None is endless."""
    holder: str | None = None
    """Who makes it, or made it."""


@dataclass(frozen=True)
class Receipt:
    """What a request was, and the video it made."""

    body: bytes
    """A digest."""
    video_id: str


@dataclass
class Slip:
    """A receipt whose video is still to be made."""

    name: bytes
    body: bytes
    is_stored: bool = False
    """Whether it was stored with its video."""


class ReceiptTaken(Exception):
    """Another server made a video for this receipt a moment before."""


@dataclass(frozen=True)
class Cursor:
    """Where a page of the list begins: behind a video."""

    created_at: float
    id: str


class Rows:
    """The database. Each call is a transaction; raises ``sqlalchemy.exc.SQLAlchemyError``."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def add(self, row: VideoRow, slip: Slip | None = None, kept_after: float = 0.0) -> None:
        """A video is accepted, and the receipt of its request with it. Receipts before ``kept_after`` are too old.

        Raises ``ReceiptTaken``; then nothing is accepted.
        """
        try:
            with self._database.begin() as connection:
                if slip is not None:
                    _add_receipt(connection, slip.name, Receipt(slip.body, row.id), row.created_at, kept_after)
                connection.execute(insert(videos).values(**vars(row)))
        except IntegrityError as error:
            if slip is None:
                raise
            raise ReceiptTaken from error

    def end(self, video_id: str, holder: str, ended_at: float, ending: str, num_bytes: int) -> None:
        """A video has ended, unless it was removed or another holds it."""
        with self._database.begin() as connection:
            values = {"ended_at": ended_at, "ending": ending, "num_bytes": num_bytes}
            mine = and_(videos.c.id == video_id, videos.c.holder == holder, videos.c.ended_at.is_(None))
            connection.execute(update(videos).where(mine).values(values))

    def remove(self, video_id: str) -> None:
        """Forget a video."""
        with self._database.begin() as connection:
            connection.execute(delete(videos).where(videos.c.id == video_id))

    def find(self, video_id: str) -> VideoRow | None:
        """One video."""
        with self._database.begin() as connection:
            row = connection.execute(select(videos).where(videos.c.id == video_id)).one_or_none()
        return None if row is None else video_of(row)

    def page(
        self, owner: str | None, after: Cursor | None, limit: int, *, ended_after: float, is_ascending: bool
    ) -> list[VideoRow]:
        """Videos of an owner, or of all, in order of their creation, without those that ended too long ago."""
        wanted = select(videos).where(or_(videos.c.ended_at.is_(None), videos.c.ended_at > ended_after))
        if owner is not None:
            wanted = wanted.where(videos.c.owner == owner)
        created_at, identity = videos.c.created_at, videos.c.id
        if after is not None and is_ascending:
            same = and_(created_at == after.created_at, identity > after.id)
            wanted = wanted.where(or_(created_at > after.created_at, same))
        elif after is not None:
            same = and_(created_at == after.created_at, identity < after.id)
            wanted = wanted.where(or_(created_at < after.created_at, same))
        order = (created_at, identity) if is_ascending else (created_at.desc(), identity.desc())
        with self._database.begin() as connection:
            return [video_of(row) for row in connection.execute(wanted.order_by(*order).limit(limit))]

    def overdue(self, ended_before: float, at_most_bytes: int | None) -> list[str]:
        """Ended videos whose time is over or that have no room, the oldest first."""
        oldest_first = select(videos.c.id, videos.c.ended_at, videos.c.num_bytes).where(videos.c.ended_at.is_not(None))
        with self._database.begin() as connection:
            ended = connection.execute(oldest_first.order_by(videos.c.ended_at, videos.c.id)).all()
        taken, overdue = sum(row.num_bytes for row in ended), []
        for row in ended:
            if row.ended_at > ended_before and (at_most_bytes is None or taken <= at_most_bytes):
                break
            taken -= row.num_bytes
            overdue.append(row.id)
        return overdue

    def receipt(self, name: bytes, kept_after: float) -> Receipt | None:
        """The receipt of a request."""
        with self._database.begin() as connection:
            wanted = select(receipts).where(receipts.c.name == name, receipts.c.kept_at > kept_after)
            row = connection.execute(wanted).one_or_none()
        return None if row is None else Receipt(row.body, row.video_id)

    def keep_receipt(self, name: bytes, receipt: Receipt, now: float, kept_after: float) -> None:
        """Keep a receipt, and forget those that are too old."""
        with self._database.begin() as connection:
            connection.execute(delete(receipts).where(receipts.c.name == name))
            _add_receipt(connection, name, receipt, now, kept_after)

    def secret(self, name: str, proposed: bytes) -> bytes:
        """The secret of this name: the one that is there, or the proposed one from now on."""
        try:
            with self._database.begin() as connection:
                found = connection.scalar(select(secrets.c.value).where(secrets.c.name == name))
                if found is not None:
                    return bytes(found)
                connection.execute(insert(secrets).values(name=name, value=proposed))
            return proposed
        except IntegrityError:
            return self.secret(name, proposed)  # another replica was first

    def stored_bytes(self, owner: str, *, ended_after: float, without: Collection[str]) -> int:
        """Of the ended videos of an owner, without some, and without those that ended too long ago."""
        theirs = and_(videos.c.owner == owner, videos.c.ended_at > ended_after, videos.c.id.not_in(without))
        with self._database.begin() as connection:
            return int(connection.scalar(select(func.sum(videos.c.num_bytes)).where(theirs)) or 0)


def _add_receipt(connection: Connection, name: bytes, receipt: Receipt, now: float, kept_after: float) -> None:
    connection.execute(delete(receipts).where(receipts.c.kept_at <= kept_after))
    values = {"name": name, "body": receipt.body, "video_id": receipt.video_id, "kept_at": now}
    connection.execute(insert(receipts).values(values))


def video_of(row: Row[Any]) -> VideoRow:
    """The record of a row."""
    return VideoRow(**row._mapping)
