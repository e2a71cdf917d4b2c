"""Waiting for fragments while a client listens. Knows no bytes on the wire."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.types import Receive

from engine import Fragment


class Arrivals:
    """The fragments of a reader, waited for in slices: a wait that runs out loses nothing."""

    def __init__(self, fragments: AsyncIterator[Fragment]) -> None:
        self._fragments = fragments
        self._pending: asyncio.Task[Fragment | None] | None = None

    async def next(self, timeout_s: float) -> Fragment | None:
        """Return the next fragment, or None at the end. Raises ``TimeoutError``, and what the video failed with."""
        if self._pending is None:
            self._pending = asyncio.create_task(self._pull())
        await asyncio.wait({self._pending}, timeout=timeout_s)
        if not self._pending.done():
            raise TimeoutError
        arrived, self._pending = self._pending, None
        return arrived.result()

    async def abandon(self) -> None:
        """Stop waiting."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)

    async def _pull(self) -> Fragment | None:
        return await anext(self._fragments, None)


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, None], *guards: Coroutine[Any, Any, None]
) -> bool:
    """Run ``work`` until it ends (True, or its exception) or until the client leaves (False).

    Raises also what a guard raises first.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_client_left(receive))
    guarding = [asyncio.create_task(guard) for guard in guards]
    try:
        await asyncio.wait({working, leaving, *guarding}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, *guarding):
            if task.done():
                task.result()
        return working.done()
    finally:
        for task in (working, leaving, *guarding):
            task.cancel()
        await asyncio.gather(working, leaving, *guarding, return_exceptions=True)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
