"""A PostgreSQL of a test's own, on loopback: Debian's, in a temporary folder, as a user that is not root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path("/usr/lib/postgresql/15/bin")


def _user() -> list[str]:
    """What runs a command as somebody who may start a PostgreSQL."""
    if os.getuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("there is no user postgres, and root may not run a PostgreSQL")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A new database; its URL."""
    if not (BIN / "initdb").exists():
        pytest.skip(f"{BIN} has no PostgreSQL; install Debian's package postgresql-15")
    as_user = _user()
    folder = Path(tempfile.mkdtemp(prefix="hiar-postgres-"))
    try:
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        initdb = [*as_user, BIN / "initdb", "-D", data, "-U", "hiar", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*as_user, BIN / "pg_ctl", "-D", data, "-w"]
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], cwd=folder, check=True)
        try:
            yield f"postgresql+psycopg://hiar@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], cwd=folder, check=True)
    finally:
        shutil.rmtree(folder)
