"""A video as its reader holds it. It waits on one event loop; what it knows is in the record."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from engine.errors import HiarError
from engine.front.video import Video, VideoState, VideoStatus
from engine.request import EndReason, Fragment, VideoRequest


class LoopBell:
    """Wakes coroutines of one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        self._event.set()
        self._event = asyncio.Event()

    async def rung(self) -> None:
        """Wait for the next ring. Who looks before it waits, without awaiting in between, misses none."""
        await self._event.wait()


class Desk(Protocol):
    """What a reader asks of the front."""

    def taken(self, video: Video) -> None:
        """The reader took a block."""
        ...

    def leave(self, video: Video) -> None:
        """Nobody waits for the video any more."""
        ...

    async def change_prompt(self, video: Video, text: str) -> int:
        """Follow another prompt."""
        ...

    def status(self, video: Video) -> VideoStatus:
        """Where it stands."""
        ...


class VideoHandle:
    """A video in the making, for one consumer. Made by ``Engine.open``."""

    def __init__(self, video: Video, desk: Desk) -> None:
        self._video, self._desk = video, desk

    @property
    def id(self) -> str:
        """Its address."""
        return self._video.id

    @property
    def request(self) -> VideoRequest:
        """What was asked for."""
        return self._video.request

    @property
    def codecs(self) -> str | None:
        """RFC 6381 string; None before the first block."""
        return self._video.codecs

    @property
    def init_segment(self) -> bytes | None:
        """What a player needs before the first fragment; None before the first block."""
        return self._video.init_segment

    @property
    def end_reason(self) -> EndReason | None:
        """How it ended; None while it goes on, or if it failed."""
        return self._video.end_reason

    @property
    def failure(self) -> HiarError | None:
        """Why it failed, if it did."""
        return self._video.failure

    @property
    def next_block(self) -> int:
        """Blocks the reader has taken so far."""
        return self._video.progress.taken

    async def fragments(self) -> AsyncGenerator[Fragment, None]:
        """Yield fragments as they are made; end when the video ends.

        Raises:
            VideoFailed: the engine could not go on; fragments made before are yielded first.
            EngineUnavailable: the engine drained before the video got its turn.
        """
        video = self._video
        while True:
            while video.ready:
                fragment = video.ready.popleft()
                self._desk.taken(video)
                yield fragment
            if video.failure is not None:
                raise video.failure
            if video.end_reason is not None:
                return
            await video.bell.rung()

    async def change_prompt(self, text: str) -> int:
        """Follow another prompt. Returns the first block it holds for; raises ``RequestError``."""
        return await self._desk.change_prompt(self._video, text)

    async def close(self) -> None:
        """Stop making blocks and free the pages; returns when they are free. Idempotent."""
        self._desk.leave(self._video)
        await self.freed()

    async def freed(self) -> None:
        """Wait until the pages are free."""
        while self._video.state != VideoState.ENDED:
            await self._video.bell.rung()

    def status(self) -> VideoStatus:
        """Where the video stands now."""
        return self._desk.status(self._video)
