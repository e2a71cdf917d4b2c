"""What viewers do, as tasks: each asks for its video and notes when what comes of it comes."""

import asyncio
from collections.abc import Callable

from hiar_client.async_client import AsyncClient
from hiar_client.async_video import AsyncVideo
from hiar_client.bench.plan import Load, Viewer
from hiar_client.bench.viewing import Arrival, Viewing
from hiar_client.errors import HiarError
from hiar_client.requests import GenerateFields

_SLOWNESS = 0.7
"""Of a slow reader's speed to that of playback: above the half below which the server ends it."""
_AWAY_S = 0.5
_LINGER_S = 30.0


class Watching:
    """One viewer at work."""

    def __init__(
        self, client: AsyncClient, load: Load, viewer: Viewer, viewing: Viewing, now: Callable[[], float]
    ) -> None:
        """``client`` asks nothing twice. ``now``: seconds since the beginning of the run."""
        self._client, self._load, self._viewer, self._viewing, self._now = client, load, viewer, viewing, now

    async def watch(self) -> None:
        """See the video, as this one does."""
        viewing = self._viewing
        try:
            viewing.end = await self._see()
        except HiarError as error:
            viewing.end, viewing.is_error = error.code, True
        viewing.ended_at_s = self._now()

    async def _see(self) -> str:
        async with await self._ask() as video:
            left = not await self._read(video)
            next_block = video.next_block
        if not left:
            return _end_of(video)
        if self._viewer.behaviour == "leaver":
            return "left"
        self._viewing.cut_at_s = self._now()
        await asyncio.sleep(_AWAY_S)
        async with await self._client.watch(video.id, next_block, resume=False) as rest:
            async for fragment in rest:
                self._note(fragment.block, fragment.duration_s)
            return _end_of(rest)

    async def _ask(self) -> AsyncVideo:
        load, viewer = self._load, self._viewer
        fields: GenerateFields = {"seconds": load.seconds, "seed": viewer.seed, "pace": load.pace, "size": load.size}
        if viewer.behaviour == "resumer":
            fields["linger_seconds"] = _LINGER_S
        return await self._client.generate(viewer.prompt, resume=False, **fields)

    async def _read(self, video: AsyncVideo) -> bool:
        """Read until the end, or until this viewer leaves. Returns whether it is the end."""
        viewer, came_s, turned = self._viewer, 0.0, False
        changing: asyncio.Task[None] | None = None
        async for fragment in video:
            self._note(fragment.block, fragment.duration_s)
            came_s += fragment.duration_s
            if viewer.behaviour == "slow":
                await asyncio.sleep(fragment.duration_s / _SLOWNESS)
            if not turned and viewer.turn * self._load.seconds <= came_s < self._load.seconds:
                turned = True
                if viewer.behaviour in {"leaver", "resumer"}:
                    return False
                if viewer.behaviour == "changer":
                    changing = asyncio.create_task(self._change(video.id))
        if changing is not None:
            await changing
        return True

    async def _change(self, video_id: str) -> None:
        asked_at_s = self._now()
        try:
            change = await self._client.videos.prompt(video_id, self._viewer.next_prompt)
        except HiarError:
            return  # the video had just ended
        self._viewing.changed_at_s, self._viewing.changed_block = asked_at_s, change.block

    def _note(self, block: int, duration_s: float) -> None:
        self._viewing.arrivals.append(Arrival(at_s=self._now(), duration_s=duration_s, block=block))


def _end_of(video: AsyncVideo) -> str:
    return "completed" if video.end is None else video.end.reason
