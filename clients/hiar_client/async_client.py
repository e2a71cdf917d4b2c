"""The client for programs with an event loop: as ``client``, with ``await``.

async with AsyncClient() as client, client.generate("a red star at night", seconds=5) as video:
    await video.save("star.mp4")
"""

import os
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import Any, Self, Unpack

from hiar_client.async_video import AsyncVideo, listening
from hiar_client.async_wire import AsyncWire
from hiar_client.calls import Calls
from hiar_client.events import Event
from hiar_client.exchange import DEFAULT_RETRIES, Retries
from hiar_client.objects import (
    Capabilities,
    Model,
    Order,
    PromptChange,
    Variant,
    VideoDeleted,
    VideoInfo,
    VideoPage,
)
from hiar_client.outage import GIVE_UP_S
from hiar_client.reader import Reader
from hiar_client.requests import CreateFields, FromBlock, GenerateFields, Prompt
from hiar_client.wire import DEFAULT_URL, checked


class AsyncClient:
    """One server. All methods raise ``HiarError``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        retries: Retries = DEFAULT_RETRIES,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        """As ``Client``. Raises ``BadUrl``."""
        self.url = checked(url)
        self._wire = AsyncWire(self.url, key)
        self._calls = Calls(self.url, retries, give_up_s)
        self.videos = AsyncVideos(self._wire, self._calls)
        self.models = AsyncModelList(self._wire, self._calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    def generate(self, prompt: Prompt, *, resume: bool = True, **fields: Unpack[GenerateFields]) -> "Opening":
        """As ``Client.generate``; for ``await`` and for ``async with``."""
        return self._opening(self._calls.generating(prompt, fields, resume=resume))

    def watch(self, video_id: str, from_block: FromBlock = 0, *, resume: bool = True) -> "Opening":
        """As ``Client.watch``; for ``await`` and for ``async with``."""
        return self._opening(self._calls.watching(video_id, from_block, resume=resume))

    async def capabilities(self) -> Capabilities:
        """As ``Client.capabilities``."""
        return await self._wire.run(self._calls.capabilities())

    def _opening(self, reader: Reader) -> "Opening":
        return Opening(self._wire, reader, AsyncVideo(self._wire, self._calls, reader))


class Opening:
    """A video that is about to be read: ``await`` it, or use it in ``async with``."""

    def __init__(self, wire: AsyncWire, reader: Reader, video: AsyncVideo) -> None:
        self._wire, self._reader, self._video = wire, reader, video

    def __await__(self) -> Generator[Any, None, AsyncVideo]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncVideo:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._video.close()

    async def _open(self) -> AsyncVideo:
        await self._wire.run(self._reader.open())
        return self._video


class AsyncVideos:
    """The videos of a server."""

    def __init__(self, wire: AsyncWire, calls: Calls) -> None:
        self._wire, self._run, self._calls = wire, wire.run, calls

    async def create(self, prompt: Prompt, **fields: Unpack[CreateFields]) -> VideoInfo:
        """As ``Client.videos.create``."""
        return await self._run(self._calls.create(prompt, fields))

    async def get(self, video_id: str) -> VideoInfo:
        """As ``Client.videos.get``."""
        return await self._run(self._calls.video(video_id))

    async def list(self, limit: int = 20, after: str | None = None, order: Order = "desc") -> VideoPage:
        """As ``Client.videos.list``."""
        return await self._run(self._calls.page(limit, after, order))

    async def all(self, order: Order = "desc", page_size: int = 100) -> AsyncIterator[VideoInfo]:
        """As ``Client.videos.all``."""
        page = await self.list(page_size, None, order)
        while True:
            for info in page.data:
                yield info
            if not page.has_more:
                return
            page = await self.list(page_size, page.last_id, order)

    async def content(self, video_id: str, variant: Variant = "video") -> bytes:
        """As ``Client.videos.content``."""
        data = bytearray()
        await self._run(self._calls.content(video_id, variant, data.extend))
        return bytes(data)

    async def download(self, video_id: str, path: "str | os.PathLike[str]", variant: Variant = "video") -> int:
        """As ``Client.videos.download``."""
        return await self._run(self._calls.download(video_id, path, variant))

    async def wait(self, video_id: str, timeout: float | None = None) -> VideoInfo:
        """As ``Client.videos.wait``."""
        return await self._run(self._calls.wait(video_id, timeout))

    def events(self, video_id: str) -> AsyncIterator[Event]:
        """As ``Client.videos.events``."""
        return listening(self._wire, self._calls.events(video_id))

    async def prompt(self, video_id: str, prompt: str) -> PromptChange:
        """As ``Client.videos.prompt``."""
        return await self._run(self._calls.change_prompt(video_id, prompt))

    async def pause(self, video_id: str) -> VideoInfo:
        """As ``Client.videos.pause``."""
        return await self._run(self._calls.steer(video_id, "pause"))

    async def resume(self, video_id: str) -> VideoInfo:
        """As ``Client.videos.resume``."""
        return await self._run(self._calls.steer(video_id, "resume"))

    async def cancel(self, video_id: str) -> VideoInfo:
        """As ``Client.videos.cancel``."""
        return await self._run(self._calls.steer(video_id, "cancel"))

    async def delete(self, video_id: str) -> VideoDeleted:
        """As ``Client.videos.delete``."""
        return await self._run(self._calls.delete(video_id))

    async def remix(self, video_id: str, prompt: str) -> VideoInfo:
        """As ``Client.videos.remix``."""
        return await self._run(self._calls.remix(video_id, prompt))

    async def extend(self, video_id: str, seconds: float, prompt: str | None = None) -> VideoInfo:
        """As ``Client.videos.extend``."""
        return await self._run(self._calls.extend(video_id, seconds, prompt))


class AsyncModelList:
    """The models of a server."""

    def __init__(self, wire: AsyncWire, calls: Calls) -> None:
        self._run, self._calls = wire.run, calls

    async def list(self) -> tuple[Model, ...]:
        """As ``Client.models.list``."""
        return await self._run(self._calls.models())

    async def get(self, name: str) -> Model:
        """As ``Client.models.get``."""
        return await self._run(self._calls.model(name))
