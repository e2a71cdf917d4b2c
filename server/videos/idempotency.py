"""Requests that may come twice: the second with the same ``Idempotency-Key`` gets the video of the first."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol
from weakref import WeakValueDictionary

from starlette.requests import Request

from engine import UnknownVideo, VideoHandle
from server.errors import CONFLICT, GONE, INVALID_REQUEST, ApiError
from server.videos.readable import ToldVideo
from server.videos.store.rows import Receipt, ReceiptTaken, Slip

HEADER = "Idempotency-Key"
LIFETIME_S = 24 * 3600.0
KEY_LENGTH_MAX = 255
_RECEIPTS_MAX = 65_536
"""About 25 MB; the oldest are forgotten first."""


class Receipts(Protocol):
    """Where they are kept: in memory, or in a database that outlives the process."""

    async def find(self, name: bytes) -> Receipt | None:
        """The receipt of a name that is less than ``LIFETIME_S`` old."""
        ...

    async def keep(self, name: bytes, receipt: Receipt) -> None:
        """Keep it from now on."""
        ...


class MemoryReceipts:
    """Receipts of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, at_most: int = _RECEIPTS_MAX) -> None:
        self._clock, self._at_most = clock, at_most
        self._kept: OrderedDict[bytes, tuple[float, Receipt]] = OrderedDict()
        """With the moment it came, the oldest first."""

    async def find(self, name: bytes) -> Receipt | None:
        """The receipt of a name that is not too old."""
        self._forget()
        kept = self._kept.get(name)
        return None if kept is None else kept[1]

    async def keep(self, name: bytes, receipt: Receipt) -> None:
        """Keep it from now on."""
        self._kept[name] = self._clock(), receipt
        self._kept.move_to_end(name)
        self._forget()

    def _forget(self) -> None:
        while self._kept:
            came_at, _ = next(iter(self._kept.values()))
            if len(self._kept) <= self._at_most and self._clock() < came_at + LIFETIME_S:
                return
            self._kept.popitem(last=False)


class Repeats:
    """Tells a request that comes again from a new one."""

    def __init__(self, receipts: Receipts, find_video: Callable[[str], Awaitable[ToldVideo]]) -> None:
        """``find_video`` raises ``UnknownVideo`` for one that is forgotten."""
        self._receipts, self._find_video = receipts, find_video
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        """Of the names that are asked for now."""

    async def once(
        self, request: Request, owner: str, body: str, make: Callable[[Slip | None], Awaitable[VideoHandle]]
    ) -> tuple[ToldVideo, bool]:
        """The video of this request, and whether ``make`` made it. ``body`` tells it from others.

        ``make`` may store the slip that it is given in one step with the video, and says so in it. Raises ``ApiError``
        409 for another body under the same key, 410 for a video that is forgotten, 400 for what is no key, and what
        ``make`` raises: a request that was refused is forgotten.
        """
        key = _key_of(request)
        if key is None:
            return await make(None), True
        slip = Slip(_digest(owner, key), _digest(request.url.path, body))
        lock = self._locks.setdefault(slip.name, asyncio.Lock())
        async with lock:  # two at once must not both be the first
            receipt = await self._receipts.find(slip.name)
            if receipt is None:
                try:
                    return await self._make(slip, make), True
                except ReceiptTaken:
                    receipt = await self._receipts.find(slip.name)
        if receipt is None or receipt.body != slip.body:
            raise ApiError(CONFLICT, f"this {HEADER} came with another request before", param=HEADER)
        try:
            return await self._find_video(receipt.video_id), False
        except UnknownVideo:
            message = f"the video of this {HEADER} is kept no longer; send another to make it again"
            raise ApiError(GONE, message, param=HEADER) from None

    async def _make(self, slip: Slip, make: Callable[[Slip | None], Awaitable[VideoHandle]]) -> VideoHandle:
        video = await make(slip)
        if not slip.is_stored:
            await self._receipts.keep(slip.name, Receipt(slip.body, video.id))
        return video


def _key_of(request: Request) -> str | None:
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not 1 <= len(keys[0]) <= KEY_LENGTH_MAX:
        raise ApiError(INVALID_REQUEST, f"{HEADER}: send one of 1 to {KEY_LENGTH_MAX} characters", param=HEADER)
    return keys[0]


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8")).digest()
