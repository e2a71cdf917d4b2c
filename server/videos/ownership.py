"""Whose videos are whose: a key sees its own only, and nobody has more at a time than allowed.

Without keys there are no owners: everybody sees all, and addresses are limited. Whatever is asked of a video's address,
also of one that a later route adds, is refused here to all but its owner and its viewers.
"""

from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from engine import Engine, StorageFailed, UnknownVideo
from server.errors import FORBIDDEN, RATE_LIMITED, STORAGE_LIMIT, ApiError, from_engine
from server.http.callers import KEY_CLIENT, Caller, below, caller_of
from server.http.exchange import note_video
from server.http.keys import KeyRing
from server.http.refusing import refuse
from server.videos.library import Library
from server.videos.query import Page
from server.videos.readable import ToldVideo


class Ownership:
    """What a caller may see and make."""

    def __init__(self, engine: Engine, library: Library, keys: KeyRing | None, max_per_client: int) -> None:
        """``max_per_client``: videos that run or wait, where a key does not say otherwise."""
        self._engine, self._library = engine, library
        self._keys, self._max_per_client = keys, max_per_client

    async def require_visible(self, caller: Caller, video_id: str) -> None:
        """Raise ``UnknownVideo``, in the same words, for a video that there is not and for one that is another's."""
        if self._keys is None:
            return
        with suppress(UnknownVideo):
            if self._sees(caller, await self._library.told(video_id)):
                return
        raise UnknownVideo(f"there is no video {video_id[:64]}; an ended one is kept for a while only", "id")

    async def page(self, caller: Caller, page: Page) -> tuple[list[ToldVideo], bool]:
        """A page of those that the caller may see, and whether more comes."""
        owner = None if self._keys is None else caller.client
        return await self._library.page(page, owner, lambda video: self._sees(caller, video))

    def require_room(self, caller: Caller) -> None:
        """Raise ``ApiError`` 429 where the caller has as many videos as it may."""
        limit = self._max_per_client
        if caller.key is not None and caller.key.limits.videos is not None:
            limit = caller.key.limits.videos
        live = sum(not video.is_ended for video in self._engine.videos if video.request.owner == caller.client)
        if live >= limit:
            whose = "address" if caller.key is None else "key"
            raise ApiError(RATE_LIMITED, f"this {whose} has {live} videos that run or wait, and may have {limit}")

    async def require_storage(self, caller: Caller) -> None:
        """Raise ``ApiError`` 403 where the caller's durable videos take as much as they may.

        Raises ``StorageFailed`` where the store does not answer.
        """
        limit = None if caller.key is None else caller.key.limits.stored
        if limit is None:
            return
        stored = await self._library.stored_bytes(caller.client)
        if stored >= limit:
            message = f"this key's stored videos take {stored} bytes, and may take {limit}"
            raise ApiError(STORAGE_LIMIT, f"{message}; delete some, or wait until they expire")

    @staticmethod
    def require_priority(caller: Caller, priority: int) -> None:
        """Raise ``ApiError`` 403 where the caller may not go before others like this."""
        highest = 0 if caller.key is None else caller.key.limits.priority
        if priority > highest:
            whose = "without a key" if caller.key is None else "with this key"
            raise ApiError(FORBIDDEN, f"priority: {priority} is above {highest}, the highest {whose}", param="priority")

    def _sees(self, caller: Caller, video: ToldVideo) -> bool:
        if self._keys is None:
            return True
        if caller.token is not None:  # it was checked against the id; it ends with the key that gave it away
            return self._keys.has(video.request.owner.removeprefix(KEY_CLIENT))
        return video.request.owner == caller.client


class OwnVideosOnly:
    """Answers 404 at the addresses of videos that the caller may not see, before a route is asked. Pure ASGI."""

    def __init__(self, app: ASGIApp, owned: Ownership, video_path: str) -> None:
        """``video_path``: the address of a video; what is below it is its too."""
        self._app, self._owned, self._video = app, owned, below(video_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = self._video.match(scope["path"]) if scope["type"] == "http" else None
        try:
            if found is not None:
                note_video(scope, found["video_id"])
                await self._owned.require_visible(caller_of(scope), found["video_id"])
        except (UnknownVideo, StorageFailed) as error:
            await refuse(from_engine(error), scope, receive, send)
            return
        await self._app(scope, receive, send)
