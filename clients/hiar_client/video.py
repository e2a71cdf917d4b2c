"""A video that is read while it is generated."""

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from hiar_client.calls import Calls
from hiar_client.events import Event, EventReader
from hiar_client.fragments import End, Fragment
from hiar_client.frames import decoded
from hiar_client.objects import PromptChange, VideoInfo
from hiar_client.reader import Reader
from hiar_client.saving import Saved, Target
from hiar_client.wire import Wire

if TYPE_CHECKING:
    import av


class VideoFacts:
    """What is known of a video that is read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def id(self) -> str:
        """What ``Client.watch`` and ``Client.videos`` know it by."""
        return self._reader.id

    @property
    def init_segment(self) -> bytes:
        """What stands before the first fragment."""
        return self._reader.init_segment

    @property
    def content_type(self) -> str:
        """MIME type with codecs, for a player."""
        return self._reader.content_type

    @property
    def end(self) -> End | None:
        """Why it ended; set when the iteration has ended."""
        return self._reader.end

    @property
    def next_block(self) -> int:
        """The first block that has not been given out."""
        return self._reader.next_block


class Video(VideoFacts):
    """One reader of a video. Iterate over it once; leaving the ``with`` block leaves the video.

    All methods raise ``HiarError``.
    """

    def __init__(self, wire: Wire, calls: Calls, reader: Reader) -> None:
        """Made by ``Client.generate`` and ``Client.watch``."""
        super().__init__(reader)
        self._wire, self._run, self._calls = wire, wire.run, calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Fragment]:
        """Yield fragments as they arrive. Raises ``HiarError`` if the video does not end as it should."""
        while (fragment := self._run(self._reader.next())) is not None:
            yield fragment

    def frames(self) -> "Iterator[av.VideoFrame]":
        """Yield pictures as they arrive, decoded: ``frame.to_ndarray(format="rgb24")`` is an array [height, width, 3],
        ``frame.time`` its seconds of playback. In place of iterating over fragments.

        Raises ``ExtraMissing`` where PyAV is not installed: ``pip install 'hiar-client[frames]'``.
        """
        decode = decoded(self.init_segment)
        for fragment in self:
            yield from decode(fragment)

    def save(
        self, path: "str | os.PathLike[str] | BinaryIO", on_fragment: Callable[[Fragment], object] | None = None
    ) -> Saved:
        """Write the video, or what is left of it, as it comes. Returns what was written.

        A path is written beside as ``path.part`` and renamed when the video has ended. If it breaks off before, what
        came stays there and plays; notes of the error say so. An open file is written as it is.
        ``on_fragment`` is called behind the writing of each.
        """
        with Target(path, self._reader) as target:
            for fragment in self:
                target.write(fragment)
                if on_fragment is not None:
                    on_fragment(fragment)
            return target.done()

    def events(self) -> Iterator[Event]:
        """Yield what happens to it, from the first event that is kept, until it has ended."""
        return listening(self._wire, self._calls.events(self.id))

    def change_prompt(self, prompt: str) -> PromptChange:
        """Show something else; tells from which block on."""
        return self._run(self._calls.change_prompt(self.id, prompt))

    def pause(self) -> VideoInfo:
        """Have no more blocks begun. Those under way still come, then reading waits."""
        return self._run(self._calls.steer(self.id, "pause"))

    def resume(self) -> VideoInfo:
        """Go on."""
        return self._run(self._calls.steer(self.id, "resume"))

    def cancel(self) -> VideoInfo:
        """End it at its next block, for all its readers. What was made can still be read."""
        return self._run(self._calls.steer(self.id, "cancel"))

    def info(self) -> VideoInfo:
        """Tell how it is."""
        return self._run(self._calls.video(self.id))

    def close(self) -> None:
        """Leave the video. One of ``generate`` then ends, unless others read it or ``linger_seconds`` was given."""
        self._run(self._reader.leave())


def listening(wire: Wire, reader: EventReader) -> Iterator[Event]:
    """Yield events to the last."""
    try:
        while (event := wire.run(reader.next())) is not None:
            yield event
    finally:
        wire.run(reader.leave())
