"""A client of HiAR Server: ask for a video, get its fragments while it is generated.

with Client() as client, client.generate("a red star at night", seconds=5) as video:
    video.save("star.mp4")
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self, Unpack

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
from hiar_client.video import Video, listening
from hiar_client.wire import DEFAULT_URL, Wire, checked


class Client:
    """One server. All methods raise ``HiarError``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        retries: Retries = DEFAULT_RETRIES,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        """
        Args:
            url: address of the server.
            key: where the server asks for one.
            retries: how often a request is repeated that the server puts off or that is lost.
            give_up_s: how long a lost stream is tried to be resumed without any progress.

        Raises:
            BadUrl: ``url`` is no address.
        """
        self.url = checked(url)
        self._wire = Wire(self.url, key)
        self._run = self._wire.run
        self._calls = Calls(self.url, retries, give_up_s)
        self.videos = Videos(self._wire, self._calls)
        self.models = ModelList(self._wire, self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def generate(self, prompt: Prompt, *, resume: bool = True, **fields: Unpack[GenerateFields]) -> Video:
        """Ask for a video and read it; returns when its first block exists.

        ``prompt`` is a text, or (at_seconds, text) pairs. The other fields are those of ``GenerateFields``.

        With ``resume`` a lost connection is followed by another at the first block that is not whole. For that the
        video lives on for ``linger_seconds`` (30 unless given) without a reader; when it is closed before its end it
        ends then, unless ``linger_seconds`` was given.
        """
        return self._opened(self._calls.generating(prompt, fields, resume=resume))

    def watch(self, video_id: str, from_block: FromBlock = 0, *, resume: bool = True) -> Video:
        """Read a video that waits, runs or is kept, from a block or the newest on; any number may read one video."""
        return self._opened(self._calls.watching(video_id, from_block, resume=resume))

    def capabilities(self) -> Capabilities:
        """Tell what the server can do and how busy it is."""
        return self._run(self._calls.capabilities())

    def _opened(self, reader: Reader) -> Video:
        self._run(reader.open())
        return Video(self._wire, self._calls, reader)


class Videos:
    """The videos of a server."""

    def __init__(self, wire: Wire, calls: Calls) -> None:
        self._wire, self._run, self._calls = wire, wire.run, calls

    def create(self, prompt: Prompt, **fields: Unpack[CreateFields]) -> VideoInfo:
        """Have a video made that needs no reader; answers before anything is made.

        The fields are those of ``CreateFields``; without ``seconds`` it has 4.
        """
        return self._run(self._calls.create(prompt, fields))

    def get(self, video_id: str) -> VideoInfo:
        """Tell how a video is."""
        return self._run(self._calls.video(video_id))

    def list(self, limit: int = 20, after: str | None = None, order: Order = "desc") -> VideoPage:
        """One page: ``limit`` (1-100) videos behind the one with the id ``after``."""
        return self._run(self._calls.page(limit, after, order))

    def all(self, order: Order = "desc", page_size: int = 100) -> Iterator[VideoInfo]:
        """Yield the videos of all pages."""
        page = self.list(page_size, None, order)
        yield from page.data
        while page.has_more:
            page = self.list(page_size, page.last_id, order)
            yield from page.data

    def content(self, video_id: str, variant: Variant = "video") -> bytes:
        """The video as MP4, or a picture of it. One that is being made is read to its end."""
        data = bytearray()
        self._run(self._calls.content(video_id, variant, data.extend))
        return bytes(data)

    def download(self, video_id: str, path: "str | os.PathLike[str]", variant: Variant = "video") -> int:
        """The same into a file, which is there when it is whole. Returns its bytes."""
        return self._run(self._calls.download(video_id, path, variant))

    def wait(self, video_id: str, timeout: float | None = None) -> VideoInfo:
        """Return when the video has ended, however that was. Raises ``StillRunning`` behind ``timeout`` seconds."""
        return self._run(self._calls.wait(video_id, timeout))

    def events(self, video_id: str) -> Iterator[Event]:
        """Yield what happens to a video, from the first event that is kept, until it has ended."""
        return listening(self._wire, self._calls.events(video_id))

    def prompt(self, video_id: str, prompt: str) -> PromptChange:
        """Show something else; tells from which block on."""
        return self._run(self._calls.change_prompt(video_id, prompt))

    def pause(self, video_id: str) -> VideoInfo:
        """Have no more blocks begun."""
        return self._run(self._calls.steer(video_id, "pause"))

    def resume(self, video_id: str) -> VideoInfo:
        """Go on with a paused video."""
        return self._run(self._calls.steer(video_id, "resume"))

    def cancel(self, video_id: str) -> VideoInfo:
        """End a video at its next block and keep what was made."""
        return self._run(self._calls.steer(video_id, "cancel"))

    def delete(self, video_id: str) -> VideoDeleted:
        """End a video at once, if it runs, and have it forgotten."""
        return self._run(self._calls.delete(video_id))

    def remix(self, video_id: str, prompt: str) -> VideoInfo:
        """Have a video made again with another prompt, from the same seed."""
        return self._run(self._calls.remix(video_id, prompt))

    def extend(self, video_id: str, seconds: float, prompt: str | None = None) -> VideoInfo:
        """Have a new video made that goes on where an ended one stopped."""
        return self._run(self._calls.extend(video_id, seconds, prompt))


class ModelList:
    """The models of a server."""

    def __init__(self, wire: Wire, calls: Calls) -> None:
        self._run, self._calls = wire.run, calls

    def list(self) -> tuple[Model, ...]:
        """All that can be asked for."""
        return self._run(self._calls.models())

    def get(self, name: str) -> Model:
        """One of them."""
        return self._run(self._calls.model(name))
