"""Receipts of requests that outlive the process."""

import time
from collections.abc import Callable

from server.videos.idempotency import LIFETIME_S
from server.videos.store.asking import Asking
from server.videos.store.rows import Receipt, Rows


class StoredReceipts:
    """Receipts in the database. Raises ``StorageFailed`` where it does not answer."""

    def __init__(self, rows: Rows, asking: Asking, clock: Callable[[], float] = time.time) -> None:
        """``clock``: Unix time."""
        self._rows, self._asking, self._clock = rows, asking, clock

    async def find(self, name: bytes) -> Receipt | None:
        """The receipt of a name that is not too old."""
        kept_after = self._clock() - LIFETIME_S
        return await self._asking.ask(lambda: self._rows.receipt(name, kept_after))

    async def keep(self, name: bytes, receipt: Receipt) -> None:
        """Keep it from now on."""
        now = self._clock()
        await self._asking.ask(lambda: self._rows.keep_receipt(name, receipt, now, now - LIFETIME_S))
