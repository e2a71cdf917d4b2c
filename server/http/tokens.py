"""Viewer tokens: a word in an address that opens one video for reading, until it expires.

For what cannot send a key: ``<video src>``, players, HLS playlists. A token holds when it expires and a seal over that
and the video's id. The seal's secret lives as long as the process, and so do the videos.
"""

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

LIFETIME_S = 24 * 3600
PARAMETER = "token"
_STEP_S = 3600
"""Tokens of one video made within an hour are the same, so that addresses stay the same while they are asked for."""
_TOKEN = re.compile(r"v([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class ViewerTokens:
    """Makes tokens and tells whether one is good."""

    def __init__(self, secret: bytes | None = None, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives seconds of Unix time."""
        self._secret, self._clock = secret or secrets.token_bytes(32), clock

    def make(self, video_id: str) -> str:
        """A token for one video, good for a day at least."""
        expires = (int(self._clock() + LIFETIME_S) // _STEP_S + 1) * _STEP_S
        return f"v{expires}.{self._seal(video_id, expires)}"

    def opens(self, token: str, video_id: str) -> bool:
        """Whether it was made for this video and has not expired."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return False
        expires = int(found[1])
        return hmac.compare_digest(found[2], self._seal(video_id, expires)) and self._clock() < expires

    def _seal(self, video_id: str, expires: int) -> str:
        text = f"{expires} {video_id}".encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(hmac.digest(self._secret, text, hashlib.sha256)).decode("ascii").rstrip("=")


def split_query(query: bytes) -> tuple[bytes, str | None]:
    """A query without its token, and the token; None where there is none or more than one."""
    start = f"{PARAMETER}=".encode("ascii")
    parts = query.split(b"&") if query else []
    tokens = [part.removeprefix(start) for part in parts if part.startswith(start)]
    rest = b"&".join(part for part in parts if not part.startswith(start))
    return rest, tokens[0].decode("latin-1") if len(tokens) == 1 else None


def with_token(address: str, token: str | None) -> str:
    """An address that carries a token, where there is one."""
    if token is None:
        return address
    return f"{address}{'&' if '?' in address else '?'}{PARAMETER}={token}"
