"""A video that is read while it is generated, for programs with an event loop."""

import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import anyio.to_thread

from hiar_client.async_wire import AsyncWire
from hiar_client.calls import Calls
from hiar_client.events import Event, EventReader
from hiar_client.fragments import Fragment
from hiar_client.frames import decoded
from hiar_client.objects import PromptChange, VideoInfo
from hiar_client.reader import Reader
from hiar_client.saving import Saved, Target
from hiar_client.video import VideoFacts

if TYPE_CHECKING:
    import av


class AsyncVideo(VideoFacts):
    """One reader of a video. Iterate over it once; leaving the ``with`` block leaves the video.

    All methods raise ``HiarError``.
    """

    def __init__(self, wire: AsyncWire, calls: Calls, reader: Reader) -> None:
        """Made by ``AsyncClient.generate`` and ``AsyncClient.watch``."""
        super().__init__(reader)
        self._wire, self._run, self._calls = wire, wire.run, calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Fragment]:
        """Yield fragments as they arrive. Raises ``HiarError`` if the video does not end as it should."""
        while (fragment := await self._run(self._reader.next())) is not None:
            yield fragment

    async def frames(self) -> "AsyncIterator[av.VideoFrame]":
        """As ``Video.frames``."""
        decode = decoded(self.init_segment)
        async for fragment in self:
            for frame in await anyio.to_thread.run_sync(list, decode(fragment)):
                yield frame

    async def save(
        self, path: "str | os.PathLike[str] | BinaryIO", on_fragment: Callable[[Fragment], object] | None = None
    ) -> Saved:
        """As ``Video.save``."""
        with Target(path, self._reader) as target:
            async for fragment in self:
                target.write(fragment)
                if on_fragment is not None:
                    on_fragment(fragment)
            return target.done()

    def events(self) -> AsyncIterator[Event]:
        """As ``Video.events``."""
        return listening(self._wire, self._calls.events(self.id))

    async def change_prompt(self, prompt: str) -> PromptChange:
        """As ``Video.change_prompt``."""
        return await self._run(self._calls.change_prompt(self.id, prompt))

    async def pause(self) -> VideoInfo:
        """As ``Video.pause``."""
        return await self._run(self._calls.steer(self.id, "pause"))

    async def resume(self) -> VideoInfo:
        """As ``Video.resume``."""
        return await self._run(self._calls.steer(self.id, "resume"))

    async def cancel(self) -> VideoInfo:
        """As ``Video.cancel``."""
        return await self._run(self._calls.steer(self.id, "cancel"))

    async def info(self) -> VideoInfo:
        """As ``Video.info``."""
        return await self._run(self._calls.video(self.id))

    async def close(self) -> None:
        """As ``Video.close``."""
        await self._run(self._reader.leave())


async def listening(wire: AsyncWire, reader: EventReader) -> AsyncIterator[Event]:
    """Yield events to the last."""
    try:
        while (event := await wire.run(reader.next())) is not None:
            yield event
    finally:
        await wire.run(reader.leave())
