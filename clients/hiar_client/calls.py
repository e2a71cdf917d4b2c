"""What a server is asked and how its answer is understood, for both clients. No input or output here but of files."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from hiar_client import requests
from hiar_client.download import Download
from hiar_client.errors import StillRunning
from hiar_client.events import EventReader
from hiar_client.exchange import Asking, Request, Retries, Steps, Wait
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
    read_body,
)
from hiar_client.outage import Outage
from hiar_client.reader import Reader
from hiar_client.requests import CreateFields, FromBlock, GenerateFields, Prompt

_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.1, 2.0
_T = TypeVar("_T")


class Calls:
    """All that one server can be asked."""

    def __init__(
        self, url: str, retries: Retries, give_up_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asking = Asking(url, retries, clock)
        self._give_up_s, self._clock = give_up_s, clock

    # --- streams ---

    def generating(self, prompt: Prompt, fields: GenerateFields, *, resume: bool) -> Reader:
        """The reader of a new video."""
        making, ends_with_us = requests.generate(prompt, fields, resume=resume)
        return Reader(self._asking, self._outage(), making=making, resumes=resume, ends_with_us=ends_with_us)

    def watching(self, video_id: str, from_block: FromBlock, *, resume: bool) -> Reader:
        """A reader of a video that there is."""
        return Reader(self._asking, self._outage(), video_id=video_id, from_block=from_block, resumes=resume)

    def events(self, video_id: str) -> EventReader:
        """What happens to a video."""
        return EventReader(self._asking, self._outage(), video_id)

    def content(self, video_id: str, variant: Variant, take: Callable[[bytes], object]) -> Steps[int]:
        """Give the content, piece by piece, to ``take``. Returns the number of bytes."""
        return Download(self._asking, self._outage(), video_id, variant, take).run()

    def download(self, video_id: str, path: "str | os.PathLike[str]", variant: Variant) -> Steps[int]:
        """The content in a file, which is there when it is whole. Returns the number of bytes."""
        part = Path(f"{os.fspath(path)}.part")
        try:
            with part.open("wb") as file:
                num_bytes = yield from self.content(video_id, variant, file.write)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return num_bytes

    # --- videos ---

    def create(self, prompt: Prompt, fields: CreateFields) -> Steps[VideoInfo]:
        """Have a video made that is read later."""
        return self._record(VideoInfo, requests.create(prompt, fields))

    def video(self, video_id: str) -> Steps[VideoInfo]:
        """How a video is."""
        return self._record(VideoInfo, requests.video(video_id))

    def steer(self, video_id: str, word: Literal["cancel", "pause", "resume"]) -> Steps[VideoInfo]:
        """End, hold or go on with a video."""
        return self._record(VideoInfo, requests.steer(video_id, word))

    def change_prompt(self, video_id: str, prompt: str) -> Steps[PromptChange]:
        """Follow another prompt."""
        return self._record(PromptChange, requests.change_prompt(video_id, prompt))

    def remix(self, video_id: str, prompt: str) -> Steps[VideoInfo]:
        """Have a video made again with another prompt."""
        return self._record(VideoInfo, requests.remix(video_id, prompt))

    def extend(self, video_id: str, seconds: float, prompt: str | None) -> Steps[VideoInfo]:
        """Have a video go on where it stopped."""
        return self._record(VideoInfo, requests.extend(video_id, seconds, prompt))

    def delete(self, video_id: str) -> Steps[VideoDeleted]:
        """Forget a video."""
        return self._record(VideoDeleted, requests.delete(video_id))

    def page(self, limit: int, after: str | None, order: Order) -> Steps[VideoPage]:
        """A page of the list."""
        return self._record(VideoPage, requests.videos(limit, after, order))

    def wait(self, video_id: str, timeout_s: float | None) -> Steps[VideoInfo]:
        """Ask until a video has ended. Raises ``StillRunning`` behind ``timeout_s``."""
        began_s, poll_s = self._clock(), _SHORTEST_POLL_S
        while True:
            info = yield from self.video(video_id)
            if info.has_ended:
                return info
            left_s = float("inf") if timeout_s is None else began_s + timeout_s - self._clock()
            if left_s <= 0:
                raise StillRunning(f"the video {video_id} is {info.status} after {timeout_s:g} s")
            yield Wait(min(poll_s, left_s))
            poll_s = min(1.5 * poll_s, _LONGEST_POLL_S)

    # --- the server ---

    def models(self) -> Steps[tuple[Model, ...]]:
        """All models."""
        return (yield from self._record(Models, requests.models())).data

    def model(self, name: str) -> Steps[Model]:
        """One model."""
        return self._record(Model, requests.model(name))

    def capabilities(self) -> Steps[Capabilities]:
        """What can be asked for."""
        return self._record(Capabilities, requests.capabilities())

    def _outage(self) -> Outage:
        return Outage(self._asking.retries, self._give_up_s, self._clock)

    def _record(self, kind: type[_T], request: Request) -> Steps[_T]:
        answer = yield from self._asking.ask(request)
        return read_body(kind, answer.body)
