"""An ended video that lies in the store, as the routes see one that the engine has: told of, and read block by block.

Reading a block opens a file, so routes do it on a thread: ``server.videos.readable`` tells the two apart.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, overload

from engine import (
    BlockGone,
    Conflict,
    EndReason,
    Fragment,
    Happening,
    HiarError,
    InitSegment,
    PromptAt,
    VideoRequest,
    VideoStatus,
)
from server.videos.store.ending import Ending
from server.videos.store.journal import Contents
from server.videos.store.plain import from_plain
from server.videos.store.rows import VideoRow


class EndedVideo:
    """One of them. Has what ``VideoHandle`` has, as far as it makes sense of an ended video."""

    is_ended = is_settled = True
    paused_s = 0.0

    def __init__(self, row: VideoRow, request: VideoRequest, contents: Contents, expires_at: float) -> None:
        assert row.ended_at is not None and row.ending is not None, f"video {row.id} has not ended"
        self._row, self._contents = row, contents
        self._ending = Ending.read(row.ending)
        self.id, self.model, self.request = row.id, row.model, request
        self._ended_at, self._expires_at = row.ended_at, expires_at

    def whole_request(self) -> VideoRequest:
        """The request with its bytes, which ``request`` is without; not on the event loop. Raises ``OSError``."""
        return from_plain(VideoRequest, json.loads(self._row.request), self._contents.given_bytes())

    @property
    def created_at(self) -> float:
        """Unix time."""
        return self._row.created_at

    @property
    def init_segment(self) -> InitSegment | None:
        """What a player needs before the first block; None where none was made."""
        return self._contents.init

    @property
    def end_reason(self) -> EndReason | None:
        """How it ended; None if it failed."""
        return self._ending.end_reason

    @property
    def failure(self) -> HiarError | None:
        """Why it failed, if it did."""
        return self._ending.failure

    @property
    def kept(self) -> range:
        """The blocks that can be read."""
        return range(len(self._contents.blocks))

    @property
    def num_blocks(self) -> int:
        """As many as came of it."""
        return len(self._contents.blocks)

    @property
    def block_s(self) -> float:
        """Playback time of its longest block."""
        return self._ending.block_s

    def start_s(self, block: int) -> float:
        """Playback time of a block's first frame."""
        return self._contents.blocks[block].start_s

    def status(self) -> VideoStatus:
        """How it is."""
        row = self._row
        return self._ending.status(row.id, self.request, row.created_at, self._ended_at, self._expires_at)

    def duration_s(self, block: int) -> float:
        """Of a block."""
        return self._contents.blocks[block].duration_s

    def peek(self, block: int) -> Fragment:
        """Read one block, not on the event loop. Raises ``OSError``."""
        return self._contents.fragment(block)

    def data_of(self, blocks: Sequence[int]) -> "StoredData":
        """The bytes of blocks, each read when it is looked at, not on the event loop."""
        return StoredData(self._contents, blocks)

    def read(self, from_block: int | None = 0) -> "EndedReader":
        """Read it from a block on; None is the newest one. Raises ``BlockGone`` behind its end."""
        first = max(0, self.num_blocks - 1) if from_block is None else from_block
        self.expect(first)
        return EndedReader(self._contents, first, self.failure)

    def expect(self, block: int) -> None:
        """Whether it may be waited for. Raises ``BlockGone``."""
        if block > (end := self.num_blocks):
            raise BlockGone(f"the video has blocks 0 to {end - 1}; there will be no block {block}", "from")

    def happened(self, after: int = 0) -> tuple[int, Happening] | None:
        """That it ended, unless that is known."""
        number = self._ending.started_events + 1
        return None if after == number else (number, self._ending.happening)

    def poll(self, hold_s: float, block: int | None = None) -> None:
        """It has no readers to count."""

    async def changed(self) -> None:
        """It never does."""
        await asyncio.Event().wait()

    async def change_prompt(self, text: str) -> int:
        """Raises ``Conflict``: it takes no prompts any more."""
        raise Conflict(f"video {self.id} takes no more prompts: it has ended", "id")

    def extended(self, seconds: float, prompt: str | None, owner: str) -> VideoRequest:
        """The request for a video that continues it, with its last prompt or another; not on the event loop.

        Raises ``Conflict`` where it has no block, ``BlockGone`` where too little is known of it, ``OSError``.
        """
        if self._ending.blocks_done == 0:
            raise Conflict(f"video {self.id} ended before its first block; there is nothing to extend", "id")
        if (like := self._ending.continuation) is None:
            raise BlockGone(f"video {self.id} had too many prompts to make it again", "id")
        return replace(
            self.whole_request(),
            prompts=like.prompts if prompt is None else (PromptAt(at_s=0.0, text=prompt),),
            seconds=seconds,
            is_cut=False,
            continues=like.continues,
            remixed_from=None,
            owner=owner,
        )

    def pause(self) -> None:
        """Raises ``Conflict``: it has ended."""
        raise Conflict(f"video {self.id} has ended", "id")

    def resume(self) -> None:
        """Raises ``Conflict``: it has ended."""
        raise Conflict(f"video {self.id} has ended", "id")

    async def cancel(self) -> None:
        """It has ended."""

    async def stop(self, reason: EndReason = EndReason.CANCELLED) -> None:
        """It has ended."""

    async def freed(self) -> None:
        """It has ended."""


class EndedReader:
    """Reads the blocks of an ended video, one behind the other."""

    def __init__(self, contents: Contents, first: int, failure: HiarError | None) -> None:
        self._contents, self.next_block, self._failure = contents, first, failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fragment:
        """The next block. Raises what the video failed with behind its last one."""
        if self.next_block >= len(self._contents.blocks):
            raise self._failure or StopAsyncIteration
        fragment = await asyncio.to_thread(self._contents.fragment, self.next_block)
        self.next_block += 1
        return fragment

    def leave(self, reason: EndReason = EndReason.CLIENT_DISCONNECT) -> None:
        """Read no more."""


class StoredData(Sequence[bytes]):
    """Bytes of blocks, read when they are looked at."""

    def __init__(self, contents: Contents, blocks: Sequence[int]) -> None:
        self._contents, self._blocks = contents, blocks

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredData": ...
    def __getitem__(self, index: int | slice) -> "bytes | StoredData":
        """Read one. Raises ``OSError``."""
        if isinstance(index, slice):
            return StoredData(self._contents, self._blocks[index])
        return self._contents.fragment(self._blocks[index]).data
