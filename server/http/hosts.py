"""Which names a request may call this server by: a page elsewhere whose name is made to point here is refused.

Pure ASGI. A name that anybody can register (DNS rebinding) has to be one that the operator told; addresses cannot be
had that way, so a server that listens on all of them takes any.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import UNKNOWN_HOST, ApiError
from server.http.refusing import refuse

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(:(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = frozenset({"80", "443"})


def split_host(header: str) -> tuple[str, str | None] | None:
    """Name and port of a ``Host`` header; None where it is none. A port that goes without saying is None."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    port = found["port"]
    return found["name"].strip("[]").rstrip(".").lower(), None if port in _DEFAULT_PORTS else port


class KnownHosts:
    """The names and addresses that this server answers to."""

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        """``host``: where it listens. ``allowed``: more names; ``*.x`` is any name below x, ``*`` any at all."""
        names = {name.strip("[]").lower() for name in (host, *allowed)}
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._names = names | {"localhost"}
        own = address_in(host)
        self._takes_addresses = own is not None and own.is_unspecified

    def knows(self, name: str) -> bool:
        """Whether it answers to ``name``, which has no port and no brackets."""
        if "*" in self._names or name in self._names or name.endswith(self._suffixes):
            return True
        address = address_in(name)
        return address is not None and (address.is_loopback or self._takes_addresses)


class Hosts:
    """Answers 421 to a name that is not known, except at addresses that probes ask by whatever they have."""

    def __init__(self, app: ASGIApp, known: KnownHosts, exempt: Collection[str]) -> None:
        self._app, self._known, self._exempt = app, known, exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        asked = split_host(Headers(scope=scope).get("host", ""))
        if asked is not None and self._known.knows(asked[0]):
            await self._app(scope, receive, send)
            return
        await refuse(_unknown(asked), scope, receive, send)


def address_in(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``name`` is, if it is one."""
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _unknown(asked: tuple[str, str | None] | None) -> ApiError:
    if asked is None:
        return ApiError(UNKNOWN_HOST, "the Host header does not name this server")
    return ApiError(UNKNOWN_HOST, f"this server does not go by {asked[0]}; its operator can add it to --allowed-hosts")
