"""The store of durable videos: accepts them, takes up what nobody makes any more, and sees them off at their end.

Used on one event loop. The database is asked on a thread of its own, and files are written on another.
"""

import asyncio
import json
import logging
from typing import NamedTuple

from engine import Engine, EngineUnavailable, PastVideo, StorageFailed, VideoHandle, VideoRequest
from server.videos.idempotency import LIFETIME_S
from server.videos.store.asking import Asking
from server.videos.store.ending import Ending
from server.videos.store.folders import Folder
from server.videos.store.journal import contents_of
from server.videos.store.keeping import Keeping
from server.videos.store.leases import BEAT_S, Heartbeat, Leases
from server.videos.store.plain import from_plain, to_plain
from server.videos.store.rows import ReceiptTaken, Rows, Slip, VideoRow
from server.videos.store.shelf import Shelf
from server.videos.store.writer import Writer

RETRY_S = 1.0
SHOWN_BYTES = 64 * 1024**2
"""Of a video that is taken up again, the newest blocks that readers get from memory."""
_log = logging.getLogger(__name__)


class _Live(NamedTuple):
    video: VideoHandle
    keeping: Keeping
    watching: asyncio.Task[None]


class Store:
    """Videos that outlive the process."""

    def __init__(self, rows: Rows, folder: Folder, shelf: Shelf, leases: Leases, asking: Asking) -> None:
        self._rows, self._folder, self._asking = rows, folder, asking
        self.shelf, self._leases = shelf, leases
        self._writer = Writer(folder)
        self._live: dict[str, _Live] = {}
        self._seen: set[str] = set()
        """Those that were live at the heartbeat before."""
        self._chores: list[asyncio.Task[None]] = []
        self._heartbeat: Heartbeat | None = None

    # --- accepting ---

    async def open(self, engine: Engine, request: VideoRequest, slip: Slip | None = None) -> VideoHandle:
        """Have a video made that needs no reader; returns when it is accepted for good, with its ``slip``.

        Raises what ``Engine.open`` does, ``StorageFailed``, and ``ReceiptTaken``.
        """
        begun: list[Keeping] = []

        def keep(video_id: str) -> Keeping:
            begun.append(Keeping(video_id, self._writer))
            return begun[-1]

        video = await engine.open(request, None, keep=keep)
        keeping = begun[-1]
        keeping.hold(video)
        try:
            await self._accept(video, request, keeping, engine.manifest.name, slip)
        except (StorageFailed, ReceiptTaken):
            await video.forget()
            await keeping.written(is_last=True)
            raise
        self._watch(video, keeping)
        return video

    async def _accept(
        self, video: VideoHandle, asked: VideoRequest, keeping: Keeping, model: str, slip: Slip | None
    ) -> None:
        blobs: list[bytes] = []
        request = json.dumps(to_plain(asked, blobs))
        for blob in blobs:
            keeping.give(blob)
        if blobs:
            await keeping.written()
        if keeping.trouble is not None:
            raise keeping.trouble
        row = VideoRow(
            id=video.id,
            owner=asked.owner,
            model=model,
            created_at=video.created_at,
            request=request,
            num_blocks=video.num_blocks,
            holder=self._leases.holder,
        )
        await self._asking.ask(lambda: self._rows.add(row, slip, row.created_at - LIFETIME_S))
        if slip is not None:
            slip.is_stored = True

    # --- taking up ---

    async def start(self, engine: Engine, url: str | None) -> None:
        """Let all videos go on that nobody makes; from now on too, where other servers are at work.

        ``url``: where those reach this one; None where there are none. Raises ``StorageFailed``.
        """
        if url is not None:
            self._leases.url = url
            await self._asking.ask(self._leases.renew)
            self._heartbeat = Heartbeat(self._leases, asyncio.get_running_loop(), self._lose)
        await self._adopt(engine)
        if url is not None:
            self._chores.append(asyncio.create_task(self._adopt_often(engine)))
        self._chores.append(asyncio.create_task(self.shelf.sweep_often()))

    async def _adopt_often(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._adopt(engine)
            except StorageFailed as error:
                _log.warning("videos of lost servers cannot be taken over now: %s", error.message)
            except EngineUnavailable:
                return

    async def _adopt(self, engine: Engine) -> None:
        for row in await self._asking.ask(self._leases.take):
            try:
                past = await asyncio.to_thread(self._past, row)
            except (OSError, ValueError, KeyError) as error:
                _log.error("video %s cannot be read and is left as it is: %s", row.id, error)
                continue
            num_stored = past.fragments[-1].block + 1 if past.fragments else 0
            keeping = Keeping(row.id, self._writer, num_stored)
            video = engine.restore(past, keeping)
            _log.info("video %s goes on at block %d", row.id, num_stored)
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
            request=from_plain(VideoRequest, json.loads(row.request), contents.given_bytes()),
            model=row.model,
            created_at=row.created_at,
            init_segment=contents.init,
            fragments=tuple(map(contents.fragment, range(first, len(contents.blocks)))),
            earlier_bytes=sum(place.length for place in contents.blocks[:first]),
            prompts=tuple(contents.prompts),
            recoveries=tuple(contents.recoveries),
            is_paused=contents.is_paused,
        )

    def _lose(self, held: frozenset[str]) -> None:
        """What this server makes and does not hold any more is another's."""
        for video_id in self._seen & self._live.keys() - held:
            live = self._live[video_id]
            live.keeping.is_lost = True
            live.video.fail(StorageFailed("another server goes on with the video; ask again"))
        self._seen = set(self._live)

    # --- seeing off ---

    def _watch(self, video: VideoHandle, keeping: Keeping) -> None:
        self._live[video.id] = _Live(video, keeping, asyncio.create_task(self._see_off(video, keeping)))

    async def _see_off(self, video: VideoHandle, keeping: Keeping) -> None:
        """Wait for a video's end, record it, and hand the video over from the engine to the store."""
        await video.freed()
        await keeping.written(is_last=True)
        if keeping.is_interrupted:
            return
        if not keeping.is_lost:
            await self._record(video)
        self._live.pop(video.id, None)
        await video.forget()

    async def _record(self, video: VideoHandle) -> None:
        ended_at, ending = video.status().ended_at, Ending.of(video)
        assert ended_at is not None, f"video {video.id} has not ended"
        text, num_bytes = ending.text(), ending.num_bytes
        while True:
            try:
                await self._asking.ask(lambda: self._rows.end(video.id, self._leases.holder, ended_at, text, num_bytes))
                return
            except StorageFailed:
                await asyncio.sleep(RETRY_S)

    def has(self, video_id: str) -> bool:
        """Whether a video that the engine has is one of the store's."""
        return video_id in self._live

    async def stored_bytes(self, owner: str) -> int:
        """What an owner's videos take: the ended ones, and what is made of those that are made here.

        Raises ``StorageFailed``.
        """
        here = {
            one.video.id: one.video.status().num_bytes
            for one in self._live.values()
            if one.video.request.owner == owner
        }
        return sum(here.values()) + await self.shelf.stored_bytes(owner, without=here.keys())

    async def written(self, video_id: str) -> None:
        """Return when all that was told of a video is on the disk, if it belongs there. Raises ``StorageFailed``."""
        live = self._live.get(video_id)
        if live is not None:
            await live.keeping.written()
            if live.keeping.trouble is not None:
                raise live.keeping.trouble

    async def recorded(self, video_id: str) -> None:
        """Return when a video that has ended is in the store, if it belongs there."""
        if video_id in self._live:
            await asyncio.wait({self._live[video_id].watching})

    async def holder_url(self, video_id: str) -> str | None:
        """Where the server is at work that makes a video; None while none is. Raises ``StorageFailed``."""
        return await self._asking.ask(lambda: self._leases.holder_url(video_id))

    async def stop(self) -> None:
        """Record what has ended; what has not goes on in another process."""
        for chore in self._chores:
            chore.cancel()
        watching = {live.watching for live in self._live.values()}
        if watching:
            await asyncio.wait(watching, timeout=RETRY_S)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, *self._chores, return_exceptions=True)
        await asyncio.to_thread(self._writer.stop)
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)
            try:
                await self._asking.ask(self._leases.end)
            except StorageFailed:
                _log.warning("other servers take over what ran here when the lease is over")
        self._asking.stop()
