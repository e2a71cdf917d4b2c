"""Ended videos as files, whole or in ranges, and small pictures of videos.

What is worked out for that is done once, off the event loop, and the newest of it is remembered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from engine import BlockGone
from server.errors import RANGE_NOT_SATISFIABLE, TOO_EARLY, ApiError
from server.http.envelope import is_head
from server.videos.flat import FlatFile, flat_file
from server.videos.pictures import sheet_blocks, spritesheet, thumbnail
from server.videos.ranges import begins_later, is_known, wanted_range
from server.videos.readable import AnyVideo, data_of

REMEMBERED = 32
_Made = TypeVar("_Made")


class Variant(StrEnum):
    """What can be had of a video's content."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


class Workshop(Generic[_Made]):
    """Makes one thing of a kind at a time, in a thread, and remembers the newest."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()

    async def made(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        """What ``make`` returns, or returned for this key before. It must need nothing of the event loop."""
        async with self._lock:
            if key not in self._made:
                self._made[key] = await asyncio.to_thread(make)
                if len(self._made) > REMEMBERED:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]


class Files:
    """The content of videos as files."""

    def __init__(self) -> None:
        self._files = Workshop[FlatFile]()
        self._pictures = Workshop[bytes]()

    async def whole(self, video: AnyVideo, request: Request) -> Response:
        """An ended video that has blocks."""
        init, kept = video.init_segment, video.kept
        assert video.is_ended and init is not None and len(kept) > 0, "this is no file"
        if kept.start > 0:
            raise BlockGone(f"the beginning is no longer kept; read /stream?from={kept.start}")
        fragments = data_of(video, kept)
        file = await self._files.made(video.id, lambda: flat_file(init.data, fragments))
        return _answer(file, fragments, request, f'"{video.id}-{file.length:x}"', f'video/mp4; codecs="{init.codecs}"')

    async def picture(self, video: AnyVideo, variant: Variant) -> Response:
        """A picture of what there is of a video now."""
        init, kept = video.init_segment, video.kept
        if init is None or len(kept) == 0:
            raise ApiError(TOO_EARLY, "the video has no picture yet")
        key = (video.id, variant, kept)
        if variant is Variant.THUMBNAIL:
            middle = data_of(video, [kept[len(kept) // 2]])
            data = await self._pictures.made(key, lambda: thumbnail(init.data, middle[0]))
            media_type = "image/webp"
        else:
            shown = data_of(video, sheet_blocks(kept))
            data = await self._pictures.made(key, lambda: spritesheet(init.data, shown))
            media_type = "image/jpeg"
        caching = "private, max-age=3600" if video.is_ended else "no-store"
        return Response(data, headers={"Cache-Control": caching}, media_type=media_type)


def refuse_later_parts(request: Request) -> None:
    """Of a running video only all can be had. Raises ``ApiError`` 416 if a request wants a part."""
    if begins_later(request.headers):
        raise ApiError(RANGE_NOT_SATISFIABLE, "the video is being made; only all of it can be read, or /stream?from=N")


def _answer(file: FlatFile, fragments: Sequence[bytes], request: Request, etag: str, media_type: str) -> Response:
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if is_known(request.headers, etag):
        return Response(status_code=304, headers=headers)
    wanted = wanted_range(request.headers, etag, file.length)
    if wanted is not None and len(wanted) == 0:
        message = f"Range: the file has {file.length} bytes"
        total = {"Content-Range": f"bytes */{file.length}"}
        raise ApiError(RANGE_NOT_SATISFIABLE, message, param="Range", headers=total)
    status, span = 200, range(file.length)
    if wanted is not None:
        status, span = 206, wanted
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.length}"
    headers["Content-Length"] = str(len(span))
    if is_head(request.scope):
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_parts(file, fragments, span), status, headers, media_type)


async def _parts(file: FlatFile, fragments: Sequence[bytes], span: range) -> AsyncIterator[bytes]:
    for fragment, where in file.spans(span):
        data = file.head if fragment < 0 else await asyncio.to_thread(fragments.__getitem__, fragment)
        yield data[where]
