"""API keys: the file that has their digests, and the ring that is asked for them.

A line is ``NAME:SHA256:LIMITS``: the digest in hex of the secret, and the limits, which may be empty, as
``requests=60,videos=2,stored=20G,priority=5``. Lines that begin with # say nothing. Several lines of one name are one
owner of videos, so that a secret can be replaced by another. No secret is in the file, nor in any log.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.access_options import KEY_NAME
from server.option import size_in_bytes, whole
from server.settings import SettingError

LOOK_S = 1.0
"""A changed file is in force after this long at most."""

_log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,19}[kmgKMG]?")
_LIMITS: dict[str, tuple[Callable[[str], int], str]] = {
    "requests": (whole(1, 9_999_999), "1..9999999"),
    "videos": (whole(1, 100_000), "1..100000"),
    "stored": (size_in_bytes(1, 2**60), "1..2^60 bytes, or a number with K, M or G like 20G"),
    "priority": (whole(0, 9), "0..9"),
}
"""What reads each, and what that takes."""
_FILE_BYTES = 1024 * 1024
_PREFIX = "hiar_"


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """What a key may do. None is the server's own limit, or none."""

    requests: int | None = None
    """A minute."""
    videos: int | None = None
    """Running and waiting at a time; None is ``--max-per-client``."""
    stored: int | None = None
    """Bytes that its durable videos may have taken when another is asked for."""
    priority: int = 0
    """Highest that its requests may ask for."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """Who may use the server."""

    name: str
    digest: bytes
    limits: KeyLimits


class KeyRing:
    """The keys that are in force: those of the file as it was when it could last be read."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises ``SettingError`` that names file and line."""
        self._path, self._clock = path, clock
        self._seen = _stamp(path)
        self._keys = read_keys(path)
        self._looked_s = clock()
        if not self._keys:
            _log.warning("%s holds no key: nobody can use the server until it does", path)

    def has(self, name: str) -> bool:
        """Whether a key of this name is in force."""
        self._look()
        return any(key.name == name for key in self._keys)

    def find(self, secret: bytes) -> Key | None:
        """The key of a secret. Takes as long whichever it is, and whether there is one."""
        self._look()
        digest = hashlib.sha256(secret).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look(self) -> None:
        now = self._clock()
        if now < self._looked_s + LOOK_S:
            return
        self._looked_s = now
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self._path)
        except SettingError as error:
            _log.error("%s; the keys that were read before stay in force", error)
            return
        _log.info("%s was read again: %d keys", self._path, len(self._keys))


def read_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file. Raises ``SettingError`` that names file and line."""
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES + 1)
    except OSError as error:
        fix = "give this user the right to" if isinstance(error, PermissionError) else "correct its name"
        raise SettingError(f"--keys {path} cannot be read: {error.strerror}; {fix}") from None
    if len(text) > _FILE_BYTES:
        raise SettingError(f"--keys {path} is larger than {_FILE_BYTES} bytes")
    try:
        keys = tuple(_keys_in(text.decode("ascii").splitlines(), path))
    except UnicodeDecodeError:
        raise SettingError(f"--keys {path} holds other characters than ASCII") from None
    return keys


def new_key(name: str, path: Path | None) -> str:
    """Make a key: append its line to the file, if there is one, which is made readable for its owner alone.

    Returns what to print: the secret, and the line where there is no file. Raises ``SettingError``.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(secret.encode('ascii')).hexdigest()}:"
    if path is None:
        return f"{secret}\n{line}\n"
    if path.exists():
        read_keys(path)  # a line behind a broken one would be of no use
    try:
        held = path.read_bytes() if path.exists() else b""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write((b"" if held.endswith(b"\n") or not held else b"\n") + line.encode("ascii") + b"\n")
    except OSError as error:
        raise SettingError(f"--keys {path} cannot be written: {error.strerror}") from None
    return f"{secret}\n"


def _keys_in(lines: list[str], path: Path) -> Iterator[Key]:
    digests: set[bytes] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key = _key(line.strip())
        except ValueError as error:
            raise SettingError(f"--keys {path}, line {number}: {error}") from None
        if key.digest in digests:
            raise SettingError(f"--keys {path}, line {number}: an earlier line has this digest already")
        digests.add(key.digest)
        yield key


def _key(line: str) -> Key:
    name, colon, rest = line.partition(":")
    digest, _, limits = rest.partition(":")
    if not KEY_NAME.fullmatch(name) or not colon:
        raise ValueError("expected NAME:SHA256:LIMITS, the name of letters, digits, dots, dashes and underscores")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"the digest of {name} is not the 64 hex digits of a SHA-256")
    return Key(name=name, digest=bytes.fromhex(digest), limits=_limits(limits))


def _limits(text: str) -> KeyLimits:
    found: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        if name not in _LIMITS or name in found:
            raise ValueError(f"{name!r} is no limit or is told twice; expected {', '.join(_LIMITS)}")
        found[name] = _limit(name, value)
    return KeyLimits(**found)


def _limit(name: str, value: str) -> int:
    read, expected = _LIMITS[name]
    if _NUMBER.fullmatch(value):
        with suppress(ValueError):
            return read(value)
    raise ValueError(f"{name} is {value!r}; expected {expected}")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file; None where it cannot be seen."""
    try:
        held = path.stat()
    except OSError:
        return None
    return held.st_mtime_ns, held.st_size, held.st_ino
