"""What lies in the store and is in no engine here: ended videos, and those that another server makes."""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Container

from engine import StorageFailed, VideoRequest
from server.videos.store.asking import Asking
from server.videos.store.elsewhere import RunningElsewhere
from server.videos.store.ended import EndedVideo
from server.videos.store.folders import Folder
from server.videos.store.journal import Contents, contents_of
from server.videos.store.keeping import storage_trouble
from server.videos.store.plain import from_plain
from server.videos.store.rows import Cursor, Rows, VideoRow

SWEEP_S = 30.0
"""Between two looks for what is kept long enough."""
OPENED = 64
"""Ended videos whose contents are remembered."""
StoredVideo = EndedVideo | RunningElsewhere
_log = logging.getLogger(__name__)


class Shelf:
    """Finds videos and forgets them. Raises ``StorageFailed`` where the store does not answer."""

    def __init__(
        self,
        rows: Rows,
        folder: Folder,
        asking: Asking,
        *,
        keep_s: float,
        keep_bytes: int | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``keep_s``, ``keep_bytes``: how long ended videos are kept, and how much of them. ``clock``: Unix time."""
        self._rows, self._folder, self._asking, self._clock = rows, folder, asking, clock
        self.keep_s, self._keep_bytes = keep_s, keep_bytes
        self._opened: OrderedDict[str, Contents] = OrderedDict()

    async def find(self, video_id: str) -> StoredVideo | None:
        """A video; None where there is none, or it is not kept any longer."""
        row = await self._asking.ask(lambda: self._rows.find(video_id))
        if row is None or (row.ended_at is not None and row.ended_at + self.keep_s <= self._clock()):
            return None
        return await self._opened_video(row)

    async def page(
        self, owner: str | None, after: Cursor | None, limit: int, *, is_ascending: bool, known: Container[str]
    ) -> list[StoredVideo]:
        """Videos of an owner, or of all, in order of their creation, to be told of; ``known`` are left out."""
        ended_after = self._clock() - self.keep_s
        rows = await self._asking.ask(
            lambda: self._rows.page(owner, after, limit, ended_after=ended_after, is_ascending=is_ascending)
        )
        return [await self._told_video(row) for row in rows if row.id not in known]

    async def stored_bytes(self, owner: str, *, without: Collection[str]) -> int:
        """What the ended videos of an owner take, ``without`` some."""
        ended_after = self._clock() - self.keep_s
        return await self._asking.ask(lambda: self._rows.stored_bytes(owner, ended_after=ended_after, without=without))

    async def forget(self, video_id: str) -> None:
        """Forget a video, wherever it stands. Its files are still there."""
        await self._asking.ask(lambda: self._rows.remove(video_id))

    async def remove_files(self, video_id: str) -> None:
        """Remove the files of a video that is forgotten, and that nothing writes."""
        self._opened.pop(video_id, None)
        try:
            await asyncio.to_thread(self._folder.remove, video_id)
        except OSError as error:
            _log.warning("files of video %s could not be removed: %s", video_id, error)

    async def sweep(self) -> None:
        """Forget the ended videos whose time is over or that have no room."""
        overdue = await self._asking.ask(lambda: self._rows.overdue(self._clock() - self.keep_s, self._keep_bytes))
        for video_id in overdue:
            await self.forget(video_id)
            await self.remove_files(video_id)

    async def sweep_often(self) -> None:
        """Do so for ever."""
        while True:
            try:
                await self.sweep()
            except StorageFailed as error:
                _log.warning("old videos cannot be removed now: %s", error.message)
            await asyncio.sleep(SWEEP_S)

    async def _told_video(self, row: VideoRow) -> StoredVideo:
        """One without its blocks, if it has ended: its row tells all."""
        if row.ended_at is None:
            return RunningElsewhere(row, _request(row), await self._contents(row.id))
        return EndedVideo(row, _request(row), Contents(), row.ended_at + self.keep_s)

    async def _opened_video(self, row: VideoRow) -> StoredVideo:
        if row.ended_at is None:
            return await self._told_video(row)
        contents = self._opened.get(row.id) or await self._contents(row.id)
        self._opened[row.id] = contents
        if len(self._opened) > OPENED:
            self._opened.popitem(last=False)
        return EndedVideo(row, _request(row), contents, row.ended_at + self.keep_s)

    async def _contents(self, video_id: str) -> Contents:
        try:
            return await asyncio.to_thread(lambda: contents_of(self._folder.sources(video_id)))
        except OSError as error:
            _log.error("video %s cannot be read: %s", video_id, error)
            raise storage_trouble(error) from error


def _request(row: VideoRow) -> VideoRequest:
    """What was asked for, without its bytes."""
    return from_plain(VideoRequest, json.loads(row.request), None)
