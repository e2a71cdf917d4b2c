"""The tables, and the numbered steps by which a database gets them. A released step is never changed."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

metadata = MetaData()

versions = Table("hiar_versions", metadata, Column("version", Integer, primary_key=True))
"""The steps that were taken."""

videos = Table(
    "hiar_videos",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", Text, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("created_at", Float(53), nullable=False, index=True),
    Column("request", Text, nullable=False),
    Column("ended_at", Float(53), index=True),
    Column("ending", Text),
    Column("num_bytes", BigInteger, nullable=False),
    Column("num_blocks", Integer),
    Column("holder", String(64), index=True),
)
"""One row each, from when it was accepted until it is forgotten. Moments are seconds of Unix time."""

holders = Table(
    "hiar_holders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("until", Float(53), nullable=False),
)
"""Servers at work: each holds the videos that name it, until a moment by the database's clock."""

receipts = Table(
    "hiar_receipts",
    metadata,
    Column("name", LargeBinary(32), primary_key=True),
    Column("body", LargeBinary(32), nullable=False),
    Column("video_id", String(64), nullable=False),
    Column("kept_at", Float(53), nullable=False, index=True),
)
"""Of requests that may come again."""

secrets = Table("hiar_secrets", metadata, Column("name", String(64), primary_key=True), Column("value", LargeBinary))
"""Words that all replicas and all later starts share."""


def _first(connection: Connection) -> None:
    metadata.create_all(connection, [videos, holders, receipts, secrets])


MIGRATIONS = (_first,)
"""The step that leads to version 1, then the next."""


def migrate(database: Engine) -> None:
    """Take the steps that were not taken. Raises ``ValueError`` where the database is of a later server."""
    with database.begin() as connection:
        metadata.create_all(connection, [versions])
    for version, step in enumerate(MIGRATIONS, 1):
        try:
            with database.begin() as connection:
                if version not in set(connection.scalars(select(versions.c.version))):
                    connection.execute(insert(versions).values(version=version))
                    step(connection)
        except IntegrityError:
            continue  # another replica takes it at this moment
    with database.begin() as connection:
        newest = max(connection.scalars(select(versions.c.version)))
    if newest > len(MIGRATIONS):
        raise ValueError(
            f"the database is of a later server: it has version {newest}, this one knows {len(MIGRATIONS)}"
        )
