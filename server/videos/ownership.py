"""Whose videos are whose: a key sees its own only, and nobody has more at a time than allowed.

Without keys there are no owners: everybody sees all, and addresses are limited.
"""

from contextlib import suppress

from engine import Engine, UnknownVideo, VideoHandle
from server.errors import FORBIDDEN, RATE_LIMITED, ApiError
from server.http.callers import KEY_CLIENT, Caller
from server.http.keys import KeyRing


class Ownership:
    """What a caller may see and make."""

    def __init__(self, engine: Engine, keys: KeyRing | None, max_per_client: int) -> None:
        """``max_per_client``: videos that run or wait, where a key does not say otherwise."""
        self._engine, self._keys, self._max_per_client = engine, keys, max_per_client

    def video(self, caller: Caller, video_id: str) -> VideoHandle:
        """A video that the caller may see. Raises ``UnknownVideo``, in the same words for one that is another's."""
        with suppress(UnknownVideo):
            video = self._engine.video(video_id)
            if self._sees(caller, video):
                return video
        raise UnknownVideo(f"there is no video {video_id[:64]}; an ended one is kept for a while only", "id")

    def videos(self, caller: Caller) -> list[VideoHandle]:
        """All that the caller may see, the oldest first."""
        return [video for video in self._engine.videos if self._sees(caller, video)]

    def require_room(self, caller: Caller) -> None:
        """Raise ``ApiError`` 429 where the caller has as many videos as it may."""
        limit = self._max_per_client
        if caller.key is not None and caller.key.limits.videos is not None:
            limit = caller.key.limits.videos
        live = sum(not video.is_ended for video in self._engine.videos if video.request.owner == caller.client)
        if live >= limit:
            whose = "address" if caller.key is None else "key"
            raise ApiError(RATE_LIMITED, f"this {whose} has {live} videos that run or wait, and may have {limit}")

    @staticmethod
    def require_priority(caller: Caller, priority: int) -> None:
        """Raise ``ApiError`` 403 where the caller may not go before others like this."""
        highest = 0 if caller.key is None else caller.key.limits.priority
        if priority > highest:
            whose = "without a key" if caller.key is None else "with this key"
            raise ApiError(FORBIDDEN, f"priority: {priority} is above {highest}, the highest {whose}", param="priority")

    def _sees(self, caller: Caller, video: VideoHandle) -> bool:
        if self._keys is None:
            return True
        if caller.token is not None:  # it was checked against the id; it ends with the key that gave it away
            return self._keys.has(video.request.owner.removeprefix(KEY_CLIENT))
        return video.request.owner == caller.client
