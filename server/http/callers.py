"""Who asks: a key, a viewer with a token, or without keys an address. Whoever is nobody is refused before the body.

Pure ASGI. An address that is not named as open needs a key, also one that there is not: a new route cannot be open by
oversight.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import UNAUTHORIZED, ApiError
from server.http.hosts import address_in
from server.http.keys import Key, KeyRing
from server.http.rates import Rates
from server.http.refusing import refuse
from server.http.tokens import ViewerTokens, split_query

KEY_CLIENT = "key "
"""A client that is a key begins with it; its name follows."""
_CALLER_KEY = "hiar.caller"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_READS = ("GET", "OPTIONS")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks."""

    client: str
    """Who owns what it makes: ``key NAME``, or ``address X``."""
    key: Key | None = None
    token: str | None = None
    """The viewer token that let it in."""


def caller_of(scope: Scope) -> Caller:
    """Who asks. Only behind ``Callers``."""
    caller = scope[_CALLER_KEY]
    assert isinstance(caller, Caller)
    return caller


def viewer_token(caller: Caller, tokens: ViewerTokens, video_id: str) -> str | None:
    """What addresses of a video carry that this caller is told: its own token, or a new one for whoever has a key."""
    return tokens.make(video_id) if caller.key is not None else caller.token


def below(path: str) -> re.Pattern[str]:
    """What matches the addresses of a route and all below it."""
    return re.compile(compile_path(path)[0].pattern.removesuffix("$"))


def key_name(scope: Scope) -> str | None:
    """The name of the key that asks, for logs; None without one, and where nobody was found."""
    caller = scope.get(_CALLER_KEY)
    return caller.key.name if isinstance(caller, Caller) and caller.key is not None else None


@dataclass(frozen=True, kw_only=True)
class Access:
    """What lets callers in."""

    keys: KeyRing | None
    """None: no key is asked for."""
    tokens: ViewerTokens


class Callers:
    """Tells who asks, and refuses with 401 whom nothing lets in."""

    def __init__(self, app: ASGIApp, access: Access, open_paths: Iterable[str], video_path: str) -> None:
        """``open_paths``: routes that need nothing. Below ``video_path`` a token is enough to read."""
        self._app, self._keys, self._tokens = app, access.keys, access.tokens
        self._open = [compile_path(path)[0] for path in open_paths]
        self._video = below(video_path)
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What lies behind sees no token, so nothing can log it or take it for a word of its own.
        scope["query_string"], token = split_query(scope["query_string"])
        try:
            scope[_CALLER_KEY] = caller = self._caller(scope, token)
            self._require_pace(caller)
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope, token: str | None) -> Caller:
        if self._keys is None or self._is_open(scope):
            return Caller(client=f"address {_address(scope.get('client'))}")
        headers = Headers(scope=scope).getlist("authorization")
        if not headers and token is not None:
            return self._viewer(scope, token)
        return self._owner(self._keys, headers)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] in _READS and any(path.match(scope["path"]) for path in self._open)

    def _viewer(self, scope: Scope, token: str) -> Caller:
        found = self._video.match(scope["path"]) if scope["method"] == "GET" else None
        if found is None or not self._tokens.opens(token, found["video_id"]):
            message = "the viewer token has expired or does not open this; the video's object has a new one in its urls"
            raise ApiError(UNAUTHORIZED, message, headers=_CHALLENGE)
        return Caller(client="viewer", token=token)

    def _owner(self, keys: KeyRing, headers: list[str]) -> Caller:
        scheme, _, secret = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        key = keys.find(secret.strip().encode("latin-1")) if scheme.lower() == "bearer" else None
        if key is None:
            message = "no key is known by this; send 'Authorization: Bearer KEY' with a key of this server"
            raise ApiError(UNAUTHORIZED, message, headers=_CHALLENGE)
        return Caller(client=KEY_CLIENT + key.name, key=key)

    def _require_pace(self, caller: Caller) -> None:
        limit = None if caller.key is None else caller.key.limits.requests
        if limit is not None:
            too_many = f"this key may ask {limit} times a minute"
            self._rates.take(caller.client, burst=limit, per_s=limit / 60, what=too_many)


def _address(client: Any) -> str:
    """Who is limited together: an IPv4 address, or the network that one site of IPv6 has to itself."""
    address = address_in(client[0]) if client else None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return "unknown" if address is None else str(address)
