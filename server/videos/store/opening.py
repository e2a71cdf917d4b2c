"""Opens the store that the settings name, before anything is served. What is wrong with it is told in one sentence."""

import fcntl
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from server.settings import SettingError, Settings
from server.videos.store.asking import Asking
from server.videos.store.folders import Folder, LocalFolder, folder_of
from server.videos.store.leases import CLOCKS, LEASE_S, Leases
from server.videos.store.receipts import StoredReceipts
from server.videos.store.rows import Rows
from server.videos.store.schema import migrate
from server.videos.store.shelf import Shelf
from server.videos.store.store import Store

MEMORY = "memory"
_VIEWER_SECRET = "viewer tokens"
_log = logging.getLogger(__name__)


@dataclass
class OpenStore:
    """A store and what it stands on."""

    store: Store
    receipts: StoredReceipts
    viewer_secret: bytes
    """Seals viewer tokens: the same after each start."""
    is_shared: bool
    """Whether other servers may be at work on it."""
    lock: IO[str] | None
    """Held while the process lives."""

    def release(self) -> None:
        """Let another process have the folder."""
        if self.lock is not None:
            self.lock.close()


def default_folder(environment: Mapping[str, str]) -> Path:
    """Where videos are kept unless the settings say so."""
    state = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "hiar"


def open_store(settings: Settings, environment: Mapping[str, str] = os.environ) -> OpenStore | None:
    """The store; None where nothing is to be kept. Raises ``SettingError``."""
    if settings.data == MEMORY and settings.database is None and settings.store is None:
        return None
    data = default_folder(environment) if settings.data is None else Path(settings.data).expanduser()
    if settings.data == MEMORY and (settings.database is None or settings.store is None):
        raise SettingError("--data is memory; with it give both --database and --store, or neither")
    lock = _locked(data) if settings.database is None else None
    try:
        return _opened(settings, data, lock)
    except SettingError:
        if lock is not None:
            lock.close()
        raise


def _opened(settings: Settings, data: Path, lock: IO[str] | None) -> OpenStore:
    database = _database(settings.database or f"sqlite:///{data / 'videos.sqlite'}")
    folder = _folder(settings.store, data)
    rows, asking = Rows(database), Asking()
    shelf = Shelf(rows, folder, asking, keep_s=settings.keep_hours * 3600, keep_bytes=settings.keep_bytes)
    leases = Leases(database, is_alone=True) if lock is not None else _shared_leases(database, settings, data)
    return OpenStore(
        store=Store(rows, folder, shelf, leases, asking),
        receipts=StoredReceipts(rows, asking),
        viewer_secret=rows.secret(_VIEWER_SECRET, secrets.token_bytes(32)),
        is_shared=lock is None,
        lock=lock,
    )


def _shared_leases(database: Engine, settings: Settings, data: Path) -> Leases:
    if settings.data != MEMORY:
        try:
            return Leases(database, is_alone=False, seen_in=data / "servers")
        except OSError as error:
            _log.warning("jobs wait %g s after a kill: %s cannot be written (%s)", LEASE_S, data, error.strerror)
    return Leases(database, is_alone=False)


def _locked(data: Path) -> IO[str]:
    """Take the folder for this process alone: SQLite on it knows one owner."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a+")
    except OSError as error:
        message = f"--data: {data} cannot be written ({error.strerror}); give another folder, or --data memory"
        raise SettingError(message) from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # is not inherited by workers, and ends with the process
    except OSError as error:
        lock.close()
        message = f"--data: another hiar-server uses {data}; give this one a folder of its own, or --data memory"
        raise SettingError(message) from error
    return lock


def _folder(url: str | None, data: Path) -> Folder:
    try:
        return LocalFolder(data / "videos") if url is None else folder_of(url)
    except ImportError as error:
        raise SettingError(
            f"--store: {url} needs another package: {error}; for s3: pip install 'hiar-server[s3]'"
        ) from error
    except (OSError, ValueError) as error:
        raise SettingError(f"--store: {url or data / 'videos'} cannot be used: {error}") from error


def _database(text: str) -> Engine:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise SettingError(
            "--database: this is no URL of SQLAlchemy, such as postgresql+psycopg://NODE/NAME"
        ) from error
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() not in CLOCKS:
        raise SettingError(f"--database: {shown} is of no kind that is known: {', '.join(CLOCKS)}")
    try:
        database = _made(url)
        migrate(database)
    except ImportError as error:
        raise SettingError(
            f"--database: {shown} needs the package {error.name}; pip install 'hiar-server[postgres]'"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"--database: {shown} cannot be used: {reason}") from error
    return database


def _made(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    database = create_engine(url, hide_parameters=True)

    @event.listens_for(database, "connect")
    def _connected(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return database
