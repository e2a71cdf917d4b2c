"""How long a stream that broke is tried to be taken up again. No input or output here."""

import time
from collections.abc import Callable

from hiar_client.errors import HiarError
from hiar_client.exchange import Retries, pause_s

GIVE_UP_S = 60.0


class Outage:
    """Failures in a row, from the first one until something comes again."""

    def __init__(self, retries: Retries, give_up_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retries, self._give_up_s, self._clock = retries, give_up_s, clock
        self._began_s = 0.0
        self._num_failed = 0

    @property
    def read_timeout_s(self) -> float:
        """How long a new connection may be silent: the first one not so long that no other could follow it."""
        return self._give_up_s / 3 if self._num_failed <= 1 else self._give_up_s

    def over(self) -> None:
        """Something came."""
        self._num_failed = 0

    def wait_s(self, error: HiarError) -> float:
        """How long to wait before the next try; not at all before the first. Raises ``error`` to give up."""
        now_s = self._clock()
        if self._num_failed == 0:
            self._began_s = now_s
        wait_s = error.retry_after_s or 0.0
        if self._num_failed or wait_s:
            wait_s = pause_s(self._retries, max(1, self._num_failed), error.retry_after_s)
        self._num_failed += 1
        if not error.retryable or now_s + wait_s > self._began_s + self._give_up_s:
            raise error
        return wait_s
