"""A request that waits for its first block: its place in the queue, and its end if the command is stopped meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hiar_client.client import Client
from hiar_client.errors import HiarError
from hiar_client.progress import Progress

_FIRST_LOOK_S, _LOOK_EVERY_S = 0.5, 2.0
_SEEN_LEFT_S, _TRIES = 0.1, 10
"""How long the server takes to see that a connection was closed."""


class Waiting:
    """One request of ``generate``. It has no id before it has video: its prompt and seed tell it from others'."""

    def __init__(self, client: Client, prompt: str, seed: int) -> None:
        self._client, self._prompt, self._seed = client, prompt, seed
        self._id: str | None = None

    def place(self) -> int | None:
        """Where it is in the queue, from 1; None if it cannot be told. Raises ``HiarError``."""
        waiting = [video for video in self._client.videos.list(limit=100).data if video.queue_position is not None]
        alike = [
            video for video in waiting if (video.prompt, video.seed, video.readers) == (self._prompt, self._seed, 1)
        ]
        if len(alike) != 1:
            return None
        self._id = alike[0].id
        return alike[0].queue_position

    def leave(self) -> None:
        """End it, if it is seen that its only reader has just left: it would wait for that reader to come back."""
        for _ in range(_TRIES if self._id is not None else 0):
            time.sleep(_SEEN_LEFT_S)
            try:
                video = self._client.videos.get(self._id or "")
                if video.has_ended or video.readers == 0:
                    self._client.videos.cancel(video.id)
                    return
            except HiarError:
                return  # it ends by itself as well, a little later


@contextmanager
def telling(place: Callable[[], int | None], progress: Progress) -> Iterator[None]:
    """Tell of a place in the queue while the body waits."""
    over = threading.Event()

    def look() -> None:
        pause_s = _FIRST_LOOK_S
        while not over.wait(pause_s):
            pause_s = _LOOK_EVERY_S
            try:
                found = place()
            except (HiarError, RuntimeError):
                return  # refused, or the client was closed meanwhile
            if found is not None and not over.is_set():
                progress.wait(found)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
