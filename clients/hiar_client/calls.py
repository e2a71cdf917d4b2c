"""What is asked for and how its answer is understood, for both clients. No input or output here but of files."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hiar_client import requests
from hiar_client.errors import StillRunning
from hiar_client.exchange import Asking, Close, Read, Request, Steps, Wait
from hiar_client.objects import (
    Capabilities,
    Model,
    Models,
    Order,
    PromptChange,
    Variant,
    VideoDeleted,
    VideoInfo,
    VideoPage,
    read,
)

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.1, 2.0
_T = TypeVar("_T")


class Calls:
    """All that one server can be asked whose answer is no stream."""

    def __init__(self, asking: Asking, clock: Callable[[], float] = time.monotonic) -> None:
        self._asking, self._clock = asking, clock

    def video(self, request: Request) -> Steps[VideoInfo]:
        """Whatever is answered by a video."""
        return self._record(VideoInfo, request)

    def page(self, limit: int, after: str | None, order: Order) -> Steps[VideoPage]:
        """A page of the list."""
        return self._record(VideoPage, requests.videos(limit, after, order))

    def delete(self, video_id: str) -> Steps[VideoDeleted]:
        """Forget a video."""
        return self._record(VideoDeleted, requests.delete(video_id))

    def change_prompt(self, video_id: str, prompt: str) -> Steps[PromptChange]:
        """Follow another prompt."""
        return self._record(PromptChange, requests.change_prompt(video_id, prompt))

    def models(self) -> Steps[tuple[Model, ...]]:
        """All models."""
        return (yield from self._record(Models, requests.models())).data

    def model(self, name: str) -> Steps[Model]:
        """One model."""
        return self._record(Model, requests.model(name))

    def capabilities(self) -> Steps[Capabilities]:
        """What can be asked for."""
        return self._record(Capabilities, requests.capabilities())

    def wait(self, video_id: str, timeout_s: float | None) -> Steps[VideoInfo]:
        """Ask until a video has ended. Raises ``StillRunning`` behind ``timeout_s``."""
        began_s, poll_s = self._clock(), _SHORTEST_POLL_S
        while True:
            info = yield from self.video(requests.video(video_id))
            if info.has_ended:
                return info
            left_s = float("inf") if timeout_s is None else began_s + timeout_s - self._clock()
            if left_s <= 0:
                raise StillRunning(f"the video {video_id} is {info.status} after {timeout_s:g} s")
            yield Wait(min(poll_s, left_s))
            poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)

    def content(self, video_id: str, variant: Variant, take: Callable[[bytes], object]) -> Steps[int]:
        """Give the content, piece by piece, to ``take``. Returns the number of bytes."""
        answer = yield from self._asking.ask(requests.content(video_id, variant))
        num_bytes = 0
        while data := (yield Read(answer)):
            take(data)
            num_bytes += len(data)
        yield Close(answer)
        return num_bytes

    def download(self, video_id: str, path: "str | os.PathLike[str]", variant: Variant) -> Steps[int]:
        """The content in a file, which is there when it is whole."""
        part = Path(f"{os.fspath(path)}.part")
        with part.open("wb") as file:
            num_bytes = yield from self.content(video_id, variant, file.write)
        part.replace(path)
        return num_bytes

    def _record(self, kind: type[_T], request: Request) -> Steps[_T]:
        answer = yield from self._asking.ask(request)
        told: Any = json.loads(answer.body)
        return read(kind, told)
