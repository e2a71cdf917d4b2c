"""What one connection brings of a video: its init segment, its fragments, and how it ended. No input or output here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hiar_client.boxes import Box, BoxSplitter, NotMp4, default_ticks, fragment_length, signal, timescale
from hiar_client.errors import BadStream, ServerError
from hiar_client.objects import EndReason
from hiar_client.told_errors import error_in_stream


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """One block of video."""

    block: int
    data: bytes
    """A ``moof`` and its ``mdat``; playable behind the init segment."""
    num_frames: int
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class End:
    """Why a video ended that did not fail."""

    reason: EndReason
    last_block: int


class FragmentParser:
    """Cuts the bytes of one connection. What is not whole when it breaks is dropped with the parser."""

    def __init__(self, first_block: int) -> None:
        self.init_segment: bytes | None = None
        """Set as soon as it is whole."""
        self.has_brought = False
        """Whether more came than the beginning of a fragment: what each connection brings is no progress."""
        self._boxes = BoxSplitter()
        self._before = b""
        self._moof: Box | None = None
        self._next_block = first_block

    def feed(self, data: bytes) -> Iterator[Fragment | End | ServerError]:
        """Take more bytes. Yields what they complete. Raises ``BadStream``."""
        try:
            for box in self._boxes.feed(data):
                yield from self._take(box)
        except NotMp4 as error:
            raise BadStream(f"the answer is not an MP4 stream: {error}") from error

    def _take(self, box: Box) -> Iterator[Fragment | End | ServerError]:
        if self.init_segment is None:
            self._begin(box)
            return
        if box.kind == "moof":
            self._moof = box
            return
        self.has_brought = True
        if box.kind == "mdat" and self._moof is not None:
            yield self._fragment(self._moof, box)
        elif payload := signal(box):
            yield from _end(payload)

    def _begin(self, box: Box) -> None:
        self._before += box.data
        if box.kind == "moov":
            self._timescale, self._default_ticks = timescale(box), default_ticks(box)
            self.init_segment = self._before

    def _fragment(self, moof: Box, mdat: Box) -> Fragment:
        num_frames, ticks = fragment_length(moof, self._default_ticks)
        block, self._next_block = self._next_block, self._next_block + 1
        return Fragment(
            block=block, data=moof.data + mdat.data, num_frames=num_frames, duration_s=ticks / self._timescale
        )


def _end(payload: dict[str, Any]) -> Iterator[End | ServerError]:
    if payload.get("type") == "end":
        yield End(reason=payload["reason"], last_block=payload["last_block"])
    elif payload.get("type") == "error":
        yield error_in_stream(payload)
