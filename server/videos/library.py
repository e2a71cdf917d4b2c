"""All videos that an address can name: those that the engine has, and ended ones that lie in the store."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from engine import Engine, RequestError, StorageFailed, UnknownVideo, VideoHandle, VideoRequest, VideoStatus
from server.videos.query import Page
from server.videos.readable import AnyVideo, ToldVideo
from server.videos.store.elsewhere import RunningElsewhere
from server.videos.store.rows import Cursor, Slip
from server.videos.store.store import Store

PAUSE_S, TRIES = 0.25, 80
"""How a video is waited for whose server is lost, until another takes it over."""


class Library:
    """Finds, lists, makes and removes videos."""

    def __init__(self, engine: Engine, store: Store | None = None) -> None:
        """``store``: where durable ones are kept; None keeps nothing."""
        self._engine, self._store = engine, store

    async def told(self, video_id: str) -> ToldVideo:
        """One video. Raises ``UnknownVideo``, and ``StorageFailed`` where the store does not answer."""
        try:
            return self._engine.video(video_id)
        except UnknownVideo:
            stored = None if self._store is None else await self._store.shelf.find(video_id)
            if stored is None:
                raise
            return stored

    async def video(self, video_id: str) -> AnyVideo:
        """One video that can be read here. Raises as ``told`` does; one that runs elsewhere is not known here."""
        video = await self.told(video_id)
        if isinstance(video, RunningElsewhere):
            raise StorageFailed("no server goes on with the video yet; ask again")
        return video

    async def address_elsewhere(self, video_id: str) -> str | None:
        """Where a video is made, unless that is here or it has ended. Waits while a server takes it over.

        Raises as ``told`` does.
        """
        for _ in range(TRIES):
            video = await self.told(video_id)
            if self._store is None or not isinstance(video, RunningElsewhere):
                return None
            if (address := await self._store.holder_url(video_id)) is not None:
                return address
            await asyncio.sleep(PAUSE_S)
        raise StorageFailed("no server goes on with the video yet; ask again")

    async def open_durable(self, request: VideoRequest, slip: Slip | None = None) -> VideoHandle:
        """Have a video made that needs no reader; where there is a store, it is accepted for good, with its ``slip``.

        Raises what ``Engine.open`` does, ``StorageFailed``, and ``ReceiptTaken``.
        """
        if self._store is None:
            return await self._engine.open(request, None)
        return await self._store.open(self._engine, request, slip)

    async def stored_bytes(self, owner: str) -> int:
        """What an owner's durable videos take; nothing, where they are not kept. Raises ``StorageFailed``."""
        return 0 if self._store is None else await self._store.stored_bytes(owner)

    async def page(
        self, page: Page, owner: str | None, sees: Callable[[ToldVideo], bool]
    ) -> tuple[list[ToldVideo], bool]:
        """A page of the list, and whether more comes. ``owner``: whose ended ones may be told of; None is all.

        Raises ``RequestError`` where the page begins behind a video that there is not.
        """
        after = None if page.after is None else await self._cursor(page.after, sees)
        here, stored = self._engine.videos, []
        if self._store is not None:
            known = {video.id for video in here}
            stored = await self._store.shelf.page(
                owner, after, page.limit + 1, is_ascending=page.is_ascending, known=known
            )
        keyed = [(_key(video), video) for video in (*stored, *filter(sees, here))]
        if after is not None:
            limit = (after.created_at, after.id)
            keyed = [(key, video) for key, video in keyed if (key > limit if page.is_ascending else key < limit)]
        keyed.sort(key=lambda one: one[0], reverse=not page.is_ascending)
        videos = [video for _, video in keyed]
        return videos[: page.limit], len(videos) > page.limit

    async def _cursor(self, video_id: str, sees: Callable[[ToldVideo], bool]) -> Cursor:
        with suppress(UnknownVideo):
            if sees(video := await self.told(video_id)):
                return Cursor(*_key(video))
        raise RequestError(f"after: there is no video {video_id[:64]!r}", "after")

    def status(self, video: ToldVideo) -> VideoStatus:
        """How a video is."""
        status = video.status()
        if self._store is not None and status.ended_at is not None and self._store.has(video.id):
            return replace(status, expires_at=status.ended_at + self._store.shelf.keep_s)
        return status

    async def written(self, video: AnyVideo) -> None:
        """Return when what was done to a video outlives the server, where videos do. Raises ``StorageFailed``."""
        if self._store is not None:
            await self._store.written(video.id)

    async def recorded(self, video: AnyVideo) -> None:
        """Return when an ended video is where it is kept."""
        if self._store is not None:
            await self._store.recorded(video.id)

    async def remove(self, video: ToldVideo) -> None:
        """End a video at once, if it runs, and forget it. Raises ``StorageFailed``."""
        if self._store is not None:
            await self._store.shelf.forget(video.id)
        if isinstance(video, VideoHandle):
            await video.forget()
        if self._store is not None:
            await self._store.recorded(video.id)
            await self._store.shelf.remove_files(video.id)


def _key(video: ToldVideo) -> tuple[float, str]:
    return video.created_at, video.id
