"""What the log says when the server is ready: where it is, and a command that makes a video there as it stands."""

import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

_CLIENTS_DEFAULT = "http://127.0.0.1:8000"
"""Where the clients ask without being told."""
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""Addresses that mean all of this node: not every program can ask them."""
_PROMPT = "a red star spins in place at night"
_BODY = f'{{"prompt": "{_PROMPT}", "seconds": 5}}'


def ready_line(address: str, took_s: float, *, needs_key: bool, has_command: bool) -> str:
    """``address``: as the start of a URL. ``has_command``: whether ``hiar`` can be run here."""
    url = _askable(address)
    example = _hiar(url, needs_key=needs_key) if has_command else _curl(url, needs_key=needs_key)
    return f"ready after {took_s:.1f} s; open {url} in a browser, or run: {example}"


def has_hiar() -> bool:
    """Whether the client's command is beside this Python or on the path: it is a distribution of its own."""
    return Path(sys.executable).with_name("hiar").is_file() or shutil.which("hiar") is not None


def _askable(address: str) -> str:
    host = urlsplit(address).netloc.rpartition(":")[0]
    return address.replace(host, _ANY.get(host, host), 1)


def _hiar(url: str, *, needs_key: bool) -> str:
    key = "HIAR_KEY=... " if needs_key else ""
    where = "" if url == _CLIENTS_DEFAULT else f" --url {url}"
    return f"{key}hiar generate {shlex.quote(_PROMPT)} --seconds 5 -o star.mp4{where}"


def _curl(url: str, *, needs_key: bool) -> str:
    key = '-H "Authorization: Bearer $HIAR_KEY" ' if needs_key else ""
    return f"curl -sS {url}/v1/generate {key}-H 'Content-Type: application/json' -d '{_BODY}' -o star.mp4"
