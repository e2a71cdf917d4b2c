"""Lets viewers come and sees them go: in an open loop each at its time, in a closed one when another has gone."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from hiar_client.async_client import AsyncClient
from hiar_client.bench.behaviours import Watching
from hiar_client.bench.plan import Load, Viewer, arrivals, viewers
from hiar_client.bench.viewing import Viewing

_BACK_OFF_S = 1.0
"""A viewer of a closed loop who was refused comes back no sooner: one who asks at once would only measure refusals."""


@dataclass
class Run:
    """A run, also while it goes on."""

    load: Load
    viewings: list[Viewing] = field(default_factory=list)
    took_s: float = 0.0
    """So far."""
    began_s: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began_s

    async def go(self, client: AsyncClient) -> None:
        """Let all come and see them end. When it is cancelled, what was seen stays. ``client`` asks nothing twice."""
        self.began_s = time.monotonic()
        coming = viewers(self.load)
        try:
            async with asyncio.TaskGroup() as group:
                if self.load.rate is not None:
                    group.create_task(self._open_loop(client, coming, self.load.rate, group))
                else:
                    for _ in range(self.load.concurrency or 1):
                        group.create_task(self._closed_loop(client, coming))
        finally:
            self.took_s = self.now()

    async def _open_loop(
        self, client: AsyncClient, coming: Iterator[Viewer], rate: float, group: asyncio.TaskGroup
    ) -> None:
        for viewer, at_s in zip(coming, arrivals(rate, self.load.seed), strict=False):
            if self._is_over(at_s):
                return
            await asyncio.sleep(at_s - self.now())
            group.create_task(self._view(client, viewer, due_at_s=at_s))

    async def _closed_loop(self, client: AsyncClient, coming: Iterator[Viewer]) -> None:
        while not self._is_over(self.now()):
            viewer = next(coming, None)
            if viewer is None:
                return
            viewing = await self._view(client, viewer)
            if viewing.was_refused:
                await asyncio.sleep(_BACK_OFF_S)

    async def _view(self, client: AsyncClient, viewer: Viewer, due_at_s: float | None = None) -> Viewing:
        viewing = Viewing(number=viewer.number, behaviour=viewer.behaviour, asked_at_s=self.now())
        viewing.late_s = None if due_at_s is None else viewing.asked_at_s - due_at_s
        self.viewings.append(viewing)
        await Watching(client, self.load, viewer, viewing, self.now).watch()
        return viewing

    def _is_over(self, at_s: float) -> bool:
        return self.load.duration_s is not None and at_s >= self.load.duration_s
