"""The settings that say who may use the server, and how much of it."""

import ipaddress
import re
from pathlib import Path

from server.option import Option, list_of, size_in_bytes, whole, word, yes_or_no

KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text


def _network(text: str) -> str:
    return text if text == "*" else str(ipaddress.ip_network(text))


ACCESS_OPTIONS = (
    Option(
        name="keys",
        read=lambda text: Path(word(text)),
        expected="a file",
        help="file of API keys, a line NAME:SHA256:LIMITS each; read again when it changes",
        default="default: no key is asked for",
    ),
    Option(
        name="new_key",
        read=lambda text: _matching(KEY_NAME, text),
        expected="a name of letters, digits, dots, dashes and underscores",
        help="make a key of this name, print it once, append its line to the file of --keys, and serve nothing",
        default="default: none is made",
    ),
    Option(
        name="insecure",
        read=yes_or_no,
        expected="true or false",
        help="serve other machines although there are no keys: whoever reaches the port may use it",
        default="default: without keys this machine alone is served",
        is_switch=True,
    ),
    Option(
        name="allowed_hosts",
        read=list_of(lambda text: _matching(_HOST_NAME, text)),
        expected="names like video.example.com,*.example.com, or * for any",
        help="more names that requests may call this server by",
        default="default: localhost, addresses of loopback, and --host",
    ),
    Option(
        name="cors_origins",
        read=list_of(lambda text: _matching(_ORIGIN, text.lower())),
        expected="origins like https://app.example.com,http://localhost:3000",
        help="origins of other web pages that may use this server",
        default="default: none but its own",
    ),
    Option(
        name="trusted_proxies",
        read=list_of(_network),
        expected="addresses or networks like 10.0.0.0/8, or * for any",
        help="proxies whose X-Forwarded-For tells a client's address",
        default="default: none",
    ),
    Option(
        name="max_per_client",
        read=whole(1, 100_000),
        expected="1..100000",
        help="videos that one key, or without keys one address, may have running and waiting",
    ),
    Option(
        name="max_upload",
        read=size_in_bytes(65_536, 2**30),
        expected="65536..1073741824 bytes, or a number with K, M or G like 32M",
        help="largest request with a picture or a clip",
        default="default: 32M",
    ),
)
