"""What the front knows of each worker's health: when it was last heard of and what its pool holds. By rank.

Pure but for the wall clock. Knows no process; what a silence means is for the watchdog to say.
"""

import time

from engine.fleet.watchdog import Watchdog
from engine.request import WorkerLoad


class Vitals:
    """The workers of one group."""

    def __init__(self) -> None:
        self._num_pages: tuple[int, ...] = ()
        self._pages_used: dict[int, int] = {}
        self._heard_at: dict[int, float] = {}

    @property
    def pages_used(self) -> int:
        """Pages taken in all pools, as the workers last told."""
        return sum(self._pages_used.values())

    def set_pools(self, num_pages: tuple[int, ...]) -> None:
        """Every worker has its pool."""
        self._num_pages = num_pages

    def heard(self, rank: int) -> None:
        """A worker sent something."""
        self._heard_at[rank] = time.time()

    def holds(self, rank: int, pages_used: int) -> None:
        """A worker told how many pages are taken."""
        self._pages_used[rank] = pages_used

    def loads(self, watchdog: Watchdog) -> tuple[WorkerLoad, ...]:
        """How busy each worker is. All must have been heard of."""
        return tuple(
            WorkerLoad(
                rank=rank,
                heard_at=self._heard_at[rank],
                pages_used=self._pages_used.get(rank, 0),
                num_pages=num_pages,
                tickets_waiting=watchdog.owed(rank),
            )
            for rank, num_pages in enumerate(self._num_pages)
        )
