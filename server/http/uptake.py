"""Whether a client takes what it is sent fast enough. Pure: knows no socket and no clock."""

from collections import deque


class Uptake:
    """What a client has taken, looked at now and then."""

    def __init__(self, patience_s: float, window_s: float) -> None:
        """``patience_s``: how long it may take nothing of what waits for it; ``window_s``: over how long its rate is
        taken.
        """
        self._patience_s, self._window_s = patience_s, window_s
        self._looks: deque[tuple[float, int]] = deque()
        """Moments, and the bytes that it had taken by then, while something waited for it: a window of them."""
        self._last_taken: tuple[float, int] = (0.0, 0)
        """When it took something last, and how much it had then."""

    def is_too_slow(self, now: float, *, num_given: int, num_waiting: int, least_per_s: float = 0.0) -> bool:
        """Look. Counts are bytes: given so far, of which some wait. ``least_per_s``: the slowest rate that will do."""
        num_taken = num_given - num_waiting
        if num_waiting == 0:
            self._looks.clear()
            return False
        if not self._looks or num_taken > self._last_taken[1]:
            self._last_taken = now, num_taken
        self._looks.append((now, num_taken))
        while len(self._looks) > 1 and self._looks[1][0] <= now - self._window_s:
            self._looks.popleft()
        began_s, num_before = self._looks[0]
        took_s = now - began_s
        is_below_rate = took_s >= self._window_s and num_taken - num_before < least_per_s * took_s
        return is_below_rate or now - self._last_taken[0] >= self._patience_s
