"""The store of durable videos: accepts them, takes up those of an earlier life, finds ended ones, forgets old ones.

Used on one event loop, and started and closed outside it. The database is asked on a thread of its own.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from engine import (
    Engine,
    HiarError,
    PastVideo,
    StorageFailed,
    VideoHandle,
    VideoRequest,
)
from server.videos.idempotency import LIFETIME_S
from server.videos.store.ended import EndedVideo
from server.videos.store.ending import Ending
from server.videos.store.folders import Folder
from server.videos.store.journal import Contents, contents_of
from server.videos.store.keeping import Keeping, storage_trouble
from server.videos.store.plain import from_plain, to_plain
from server.videos.store.rows import Cursor, Receipt, Rows, VideoRow
from server.videos.store.writer import Writer

SWEEP_S = 30.0
"""Between two looks for what is kept long enough."""
RETRY_S = 1.0
OPENED = 64
"""Ended videos whose contents are remembered."""
SHOWN_BYTES = 64 * 1024**2
"""Of a video that is taken up again, the newest blocks that readers get from memory."""
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class Store:
    """Videos that outlive the process."""

    def __init__(
        self,
        rows: Rows,
        folder: Folder,
        *,
        keep_s: float,
        keep_bytes: int | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``keep_s``, ``keep_bytes``: how long ended videos are kept, and how much of them. ``clock``: Unix time."""
        self._rows, self._folder, self._clock = rows, folder, clock
        self.keep_s, self._keep_bytes = keep_s, keep_bytes
        self._writer = Writer(folder)
        self._asking = ThreadPoolExecutor(1, "hiar-database")
        self._live: dict[str, tuple[Keeping, asyncio.Task[None]]] = {}
        self._opened: OrderedDict[str, Contents] = OrderedDict()
        self._sweeping: asyncio.Task[None] | None = None

    # --- videos that run ---

    async def open(self, engine: Engine, request: VideoRequest) -> VideoHandle:
        """Have a video made that needs no reader; returns when it is accepted for good.

        Raises what ``Engine.open`` does, and ``StorageFailed``.
        """
        begun: list[Keeping] = []

        def keep(video_id: str) -> Keeping:
            begun.append(Keeping(video_id, self._writer))
            return begun[-1]

        video = await engine.open(request, None, keep=keep)
        keeping = begun[-1]
        keeping.hold(video)
        try:
            await self._accept(video, keeping, engine.manifest.name)
        except StorageFailed:
            await video.forget()
            await keeping.written(is_last=True)
            raise
        self._watch(video, keeping)
        return video

    async def _accept(self, video: VideoHandle, keeping: Keeping, model: str) -> None:
        blobs: list[bytes] = []
        request = json.dumps(to_plain(video.request, blobs))
        for blob in blobs:
            keeping.give(blob)
        if blobs:
            await keeping.written()
        if keeping.trouble is not None:
            raise keeping.trouble
        created_at = video.status().created_at
        row = VideoRow(id=video.id, owner=video.request.owner, model=model, created_at=created_at, request=request)
        await self._ask(lambda: self._rows.add(row))

    async def restore(self, engine: Engine) -> None:
        """Let all videos go on that had not ended when the last process did."""
        for row in await self._ask(self._rows.unended):
            if row.id in self._live:
                continue
            try:
                past = await asyncio.to_thread(self._past, row)
            except (OSError, ValueError, KeyError) as error:
                _log.error("video %s cannot be read and is left as it is: %s", row.id, error)
                continue
            await self._take_up(engine, row, past)
        self._sweeping = asyncio.create_task(self._sweep())

    async def _take_up(self, engine: Engine, row: VideoRow, past: PastVideo) -> None:
        num_stored = past.fragments[-1].block + 1 if past.fragments else 0
        keeping = Keeping(row.id, self._writer, num_stored)
        try:
            video = engine.restore(past, keeping)
        except HiarError as error:
            _log.warning("video %s cannot go on: %s", row.id, error.message)
            ending = Ending.before_it_began(past.request, error, 1.0)
            await self._record(row.id, ending, self._clock())
            return
        _log.info("video %s goes on behind block %d", row.id, num_stored - 1)
        keeping.hold(video)
        self._watch(video, keeping)

    def _past(self, row: VideoRow) -> PastVideo:
        contents = contents_of(self._folder.sources(row.id), checks_all=True)
        first, shown = len(contents.blocks), 0
        while first > 0 and (shown == 0 or shown + contents.blocks[first - 1].length <= SHOWN_BYTES):
            first -= 1
            shown += contents.blocks[first].length
        return PastVideo(
            id=row.id,
            request=from_plain(VideoRequest, json.loads(row.request), contents.given),
            model=row.model,
            created_at=row.created_at,
            init_segment=contents.init,
            fragments=tuple(map(contents.fragment, range(first, len(contents.blocks)))),
            prompts=tuple(contents.prompts),
            recoveries=tuple(contents.recoveries),
        )

    def _watch(self, video: VideoHandle, keeping: Keeping) -> None:
        self._live[video.id] = keeping, asyncio.create_task(self._see_off(video, keeping))

    async def _see_off(self, video: VideoHandle, keeping: Keeping) -> None:
        """Wait for a video's end, record it, and hand the video over from the engine to the store."""
        await video.freed()
        await keeping.written(is_last=True)
        if keeping.is_interrupted:
            return
        ended_at = video.status().ended_at
        assert ended_at is not None, f"video {video.id} has not ended"
        ending = Ending.of(video)
        while True:
            try:
                await self._record(video.id, ending, ended_at)
                break
            except StorageFailed:
                await asyncio.sleep(RETRY_S)
        self._live.pop(video.id, None)
        await video.forget()

    async def _record(self, video_id: str, ending: Ending, ended_at: float) -> None:
        await self._ask(lambda: self._rows.end(video_id, ended_at, ending.text(), ending.num_bytes))

    def has(self, video_id: str) -> bool:
        """Whether a video that the engine has is one of the store's."""
        return video_id in self._live

    async def recorded(self, video_id: str) -> None:
        """Return when a video that has ended is in the store, if it belongs there."""
        if video_id in self._live:
            await asyncio.wait({self._live[video_id][1]})

    # --- videos that have ended ---

    async def find(self, video_id: str) -> EndedVideo | None:
        """An ended video. Raises ``StorageFailed``."""
        row = await self._ask(lambda: self._rows.find(video_id))
        if row is None or row.ended_at is None or row.ended_at + self.keep_s <= self._clock():
            return None
        return await self._opened_video(row)

    async def page(
        self, owner: str | None, after: Cursor | None, limit: int, *, is_ascending: bool
    ) -> list[EndedVideo]:
        """Ended videos of an owner, or of all, in order of their creation. Raises ``StorageFailed``."""
        rows = await self._ask(lambda: self._rows.page(owner, after, limit, is_ascending=is_ascending))
        return [await self._opened_video(row) for row in rows]

    async def _opened_video(self, row: VideoRow) -> EndedVideo:
        contents = self._opened.get(row.id)
        if contents is None:
            try:
                contents = await asyncio.to_thread(lambda: contents_of(self._folder.sources(row.id)))
            except OSError as error:
                _log.error("video %s cannot be read: %s", row.id, error)
                raise storage_trouble(error) from error
            self._opened[row.id] = contents
            if len(self._opened) > OPENED:
                self._opened.popitem(last=False)
        assert row.ended_at is not None
        request = from_plain(VideoRequest, json.loads(row.request), contents.given)
        return EndedVideo(row, request, contents, row.ended_at + self.keep_s)

    async def forget(self, video_id: str) -> None:
        """Forget a video, wherever it stands. Its files go when nothing writes them. Raises ``StorageFailed``."""
        await self._ask(lambda: self._rows.remove(video_id))

    async def remove_files(self, video_id: str) -> None:
        """Remove the files of a video that is forgotten and has ended."""
        if video_id in self._live:
            _, watching = self._live.pop(video_id)
            await asyncio.wait({watching})
        self._opened.pop(video_id, None)
        try:
            await asyncio.to_thread(self._folder.remove, video_id)
        except OSError as error:
            _log.warning("files of video %s stay until the next sweep: %s", video_id, error)

    async def _sweep(self) -> None:
        while True:
            try:
                await self.sweep()
            except StorageFailed as error:
                _log.warning("old videos cannot be removed now: %s", error.message)
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Forget the ended videos whose time is over or that have no room. Raises ``StorageFailed``."""
        overdue = await self._ask(lambda: self._rows.overdue(self._clock() - self.keep_s, self._keep_bytes))
        for video_id in overdue:
            await self.forget(video_id)
            await self.remove_files(video_id)

    # --- receipts and secrets ---

    async def find_receipt(self, name: bytes) -> Receipt | None:
        """The receipt of a request. Raises ``StorageFailed``."""
        kept_after = self._clock() - LIFETIME_S
        return await self._ask(lambda: self._rows.receipt(name, kept_after))

    async def keep_receipt(self, name: bytes, receipt: Receipt) -> None:
        """Keep a receipt from now on. Raises ``StorageFailed``."""
        now = self._clock()
        await self._ask(lambda: self._rows.keep_receipt(name, receipt, now, now - LIFETIME_S))

    async def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, question)
        except SQLAlchemyError as error:
            _log.error("the database failed: %s", error)
            raise StorageFailed("the database of videos does not answer; the server's log says why") from error

    async def stop(self) -> None:
        """Record what has ended; what has not goes on in the next process."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        watching = {task for _, task in self._live.values()}
        if watching:
            await asyncio.wait(watching, timeout=RETRY_S)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write what is left, and end the threads."""
        self._writer.stop()
        self._asking.shutdown()
