"""How often something may be done: a bucket of tokens each, which fills again as time goes by."""

import math
import time
from collections.abc import Callable

from server.errors import RATE_LIMITED, ApiError

_PRUNE_ABOVE = 1024


class Rates:
    """Buckets by name. One that is full again is forgotten, so only names that were busy just now take memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """By name: when its bucket is full again, in seconds of the clock."""
        self._prune_at = _PRUNE_ABOVE

    def take(self, name: str, *, burst: int, per_s: float, what: str) -> None:
        """Take a token of ``burst``, of which ``per_s`` come back a second. Raises ``ApiError`` 429."""
        now, token_s = self._clock(), 1 / per_s
        full_at = max(now, self._full_at.get(name, now)) + token_s
        late_s = full_at - now - burst * token_s
        if late_s > 1e-9:
            headers = {"Retry-After": str(max(1, math.ceil(late_s)))}
            raise ApiError(RATE_LIMITED, f"{what}; try again in {late_s:.1f} s", headers=headers)
        self._full_at[name] = full_at
        self._prune(now)

    def _prune(self, now: float) -> None:
        if len(self._full_at) > self._prune_at:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
            self._prune_at = max(_PRUNE_ABOVE, 2 * len(self._full_at))
