"""A video as callers hold it: read, steered, ended and asked how it is. What is known of it is in the record."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Protocol

from engine.errors import HiarError
from engine.front import reader
from engine.front.extending import extended
from engine.front.log import InitSegment
from engine.front.pacing import Cursor
from engine.front.reader import Reader
from engine.front.story import Happening
from engine.front.video import Video, VideoState, VideoStatus
from engine.request import EndReason, Fragment, VideoRequest

AT_ONCE = 4
"""Coroutines that a ring wakes before the loop turns to others: hundreds of readers of a block delay nobody else."""


class LoopBell:
    """Wakes coroutines of one event loop, a few at a time."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def ring(self) -> None:
        """Wake all who wait."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            _wake(iter(waiting))

    async def rung(self) -> None:
        """Wait for the next ring. Who looks before it waits, without awaiting in between, misses none."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[woken] = None
        try:
            await woken
        finally:
            self._waiting.pop(woken, None)


def _wake(waiting: Iterator[asyncio.Future[None]]) -> None:
    woken = list(itertools.islice(waiting, AT_ONCE))
    for one in woken:
        if not one.done():  # otherwise it waits no more
            one.set_result(None)
    if len(woken) == AT_ONCE:
        woken[0].get_loop().call_soon(_wake, waiting)


class Desk(reader.Desk, Protocol):
    """What a caller asks of the front."""

    def start_reading(self, video: Video, from_block: int | None) -> Cursor:
        """A cursor that begins at a block."""
        ...

    def poll(self, video: Video, block: int | None, hold_s: float) -> None:
        """Somebody asks for what there is."""
        ...

    async def change_prompt(self, video: Video, text: str) -> int:
        """Follow another prompt."""
        ...

    def pause(self, video: Video) -> None:
        """Begin no more blocks."""
        ...

    def resume(self, video: Video) -> None:
        """Go on."""
        ...

    def paused_s(self, video: Video) -> float:
        """How long it was paused in all."""
        ...

    def stored(self, video: Video) -> None:
        """More of it is stored."""
        ...

    def fail(self, video: Video, error: HiarError) -> None:
        """End at once with an error."""
        ...

    def cancel(self, video: Video) -> None:
        """End at the next block boundary."""
        ...

    def stop(self, video: Video, reason: EndReason) -> None:
        """End at once."""
        ...

    def forget(self, video: Video) -> None:
        """End at once; the id means nothing any more."""
        ...

    def status(self, video: Video) -> VideoStatus:
        """Where it stands."""
        ...


class VideoHandle:
    """One video, for any number of callers and readers. Made by ``Engine.open`` and ``Engine.video``."""

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
    def created_at(self) -> float:
        """When it was asked for: seconds of Unix time."""
        return self._video.created_at

    @property
    def init_segment(self) -> InitSegment | None:
        """What a player needs before the first fragment; None before the first block."""
        return self._video.log.init_segment

    @property
    def end_reason(self) -> EndReason | None:
        """How it ended; None while it goes on, or if it failed."""
        return self._video.end_reason

    @property
    def failure(self) -> HiarError | None:
        """Why it failed, if it did."""
        return self._video.failure

    @property
    def is_ended(self) -> bool:
        """Whether nothing will be added to it any more."""
        return self._video.has_outcome

    @property
    def is_settled(self) -> bool:
        """Whether its end is told: nothing will happen to it any more."""
        return self._video.is_settled

    @property
    def kept(self) -> range:
        """The blocks that can be read now."""
        return range(self._video.log.first_block, self._video.log.next_block)

    def status(self) -> VideoStatus:
        """Where it stands now."""
        return self._desk.status(self._video)

    def read(self, from_block: int | None = 0) -> Reader:
        """Read it from a block on; None is the newest one. Any number may read at once, each at its own pace.

        Raises:
            BlockGone: the block is not kept any more, or the video ends before it.
            BlockTooEarly: it is more than a lead ahead of the newest block.
        """
        return Reader(self._video, self._desk.start_reading(self._video, from_block), self._desk)

    def poll(self, hold_s: float, block: int | None = None) -> None:
        """Count as a reader for so long: of those who ask again and again. ``block``: one that is handed out now."""
        self._desk.poll(self._video, block, hold_s)

    def expect(self, block: int) -> None:
        """Whether it may be waited for. Raises as ``read`` does."""
        self._desk.start_reading(self._video, block)

    async def changed(self) -> None:
        """Wait until it is another: a block more, or ended. Who looks before, without awaiting in between, misses
        nothing."""
        await self._video.bell.rung()

    def happened(self, after: int = 0) -> tuple[int, Happening] | None:
        """What happened to it next, behind the happening of this number, and its number; None if nothing has yet."""
        return self._video.story.after(after)

    @property
    def num_blocks(self) -> int | None:
        """Of the whole video, or as many as came of it; None while that is not known."""
        return self._video.log.next_block if self.is_ended else self._video.progress.num_blocks

    @property
    def block_s(self) -> float:
        """Playback time of its longest block."""
        return self._video.progress.full_block_s

    def start_s(self, block: int) -> float:
        """Playback time of a block's first frame."""
        return self._video.progress.start_s(block)

    def peek(self, block: int) -> Fragment:
        """A block that is kept, without being a reader."""
        return self._video.log.fragment(block)

    async def change_prompt(self, text: str) -> int:
        """Follow another prompt. Returns the first block it holds for; raises ``RequestError``."""
        return await self._desk.change_prompt(self._video, text)

    def extended(self, seconds: float, prompt: str | None, owner: str) -> VideoRequest:
        """The request for a video that continues it, with its last prompt or another.

        Raises:
            Conflict: it has not ended, or has no block.
            BlockGone: too little is known of it.
        """
        return extended(self._video, seconds, prompt, owner)

    def pause(self) -> None:
        """Begin no more of its blocks until it is resumed; those under way are made. Idempotent.

        Raises ``Conflict`` if it has ended or has no more blocks.
        """
        self._desk.pause(self._video)

    def resume(self) -> None:
        """Go on after a pause: at once, or when it has a place again if it sleeps. Idempotent; raises as ``pause``."""
        self._desk.resume(self._video)

    @property
    def paused_s(self) -> float:
        """How long it was paused in all, until now."""
        return self._desk.paused_s(self._video)

    async def cancel(self) -> None:
        """End it at the next block boundary and keep what was made; returns when it has ended. Idempotent."""
        self._desk.cancel(self._video)
        await self.freed()

    async def stop(self, reason: EndReason = EndReason.CANCELLED) -> None:
        """End it at once, if it runs; returns when its pages are free. Idempotent."""
        self._desk.stop(self._video, reason)
        await self.freed()

    async def forget(self) -> None:
        """End it at once, if it runs, and forget it; returns when its pages are free."""
        self._desk.forget(self._video)
        await self.freed()

    async def freed(self) -> None:
        """Wait until it has ended, its pages are free, and all of it is stored where it is to be."""
        while self._video.state != VideoState.ENDED or not (self._video.is_settled or self._video.is_forgotten):
            await self._video.bell.rung()

    def stored(self) -> None:
        """Its store has more of it than before (``KeptVideo.num_stored``): what may be told now is."""
        self._desk.stored(self._video)

    def fail(self, error: HiarError) -> None:
        """End it at once with an error, unless its end is told: its store cannot write, or the like."""
        self._desk.fail(self._video, error)
