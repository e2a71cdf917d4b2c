"""Carries out what the desk decides, on one event loop: sends, wakes, and comes back when time has passed."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Protocol, assert_never

from engine.config import EngineConfig
from engine.errors import HiarError
from engine.front.desk import Desk
from engine.front.events import (
    Ask,
    Asked,
    BlockTaken,
    Command,
    Drained,
    Event,
    GroupLost,
    GroupServes,
    Left,
    PromptAsked,
    PromptRefused,
    PromptSet,
    SendChain,
    SetTimer,
    TimePassed,
    Wake,
    WorkerSaid,
)
from engine.front.handle import LoopBell, VideoHandle
from engine.front.pacing import Progress
from engine.front.video import Video, VideoStatus
from engine.law.placement import Plan
from engine.messages import Cancel, EncodePrompt, ForFront, Ticket
from engine.observe import Observer
from engine.request import VideoRequest

Clock = Callable[[], float]


class Workers(Protocol):
    """The way to the workers."""

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """To every worker of a chain."""
        ...

    def ask(self, question: EncodePrompt) -> None:
        """To the one that embeds text."""
        ...


class Shell:
    """A desk at work. Used on one event loop."""

    def __init__(self, config: EngineConfig, workers: Workers, clock: Clock, observer: Observer) -> None:
        """``clock`` gives monotonic seconds."""
        self.desk = Desk(config, observer)
        self._config, self._workers, self._clock = config, workers, clock
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[int]] = {}
        """Of prompt changes, by the number of the question."""

    # --- what callers ask ---

    def open(self, request: VideoRequest) -> VideoHandle:
        """Queue a new video. Raises ``Overloaded`` when the queue is full."""
        progress = Progress(request=request, rollout=self._config.manifest.rollout, opened_at=self._clock())
        video = Video(f"s_{secrets.token_hex(12)}", progress, LoopBell())
        self._handle(Asked(video))
        return VideoHandle(video, self)

    def video(self, video_id: str) -> VideoHandle:
        """One that has not ended. Raises ``UnknownVideo``."""
        return VideoHandle(self.desk.video(video_id), self)

    def taken(self, video: Video) -> None:
        """The reader took a block: playback runs, and there may be room for the next."""
        self._handle(BlockTaken(video))

    def leave(self, video: Video) -> None:
        """Nobody waits for the video any more."""
        self._handle(Left(video))

    async def change_prompt(self, video: Video, text: str) -> int:
        """Follow another prompt from the next block that has no ticket yet; returns that block.

        Raises:
            UnknownVideo: the video takes no more prompts.
            HiarError: no worker will embed it any more.
        """
        number = next(self._numbers)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._handle(PromptAsked(video, text, number))
            return await answer
        finally:
            del self._answers[number]

    def status(self, video: Video) -> VideoStatus:
        """Where a video stands."""
        return self.desk.status(video, self._clock())

    async def drain(self, refusal: HiarError) -> None:
        """End running videos at the next block boundary, queued ones with ``refusal``; returns when none is left."""
        self._handle(Drained(refusal))
        for video in self.desk.videos:
            await VideoHandle(video, self).freed()

    # --- the fleet's side ---

    def serve(self, plan: Plan) -> None:
        """A worker group serves."""
        self._handle(GroupServes(plan))

    def group_lost(self, error: HiarError, suspects: frozenset[str], *, for_good: bool) -> None:
        """All workers are gone."""
        self._handle(GroupLost(error, suspects, for_good))

    def receive(self, rank: int, message: ForFront) -> None:
        """A worker's message."""
        self._handle(WorkerSaid(rank, message))

    # --- at work ---

    def _handle(self, event: Event) -> None:
        for command in self.desk.handle(event, self._clock()):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case SendChain(chain, message):
                self._workers.send_chain(chain, message)
            case Ask(question):
                self._workers.ask(question)
            case Wake(video):
                video.bell.ring()
            case PromptSet(number, block):
                if (answer := self._answers.get(number)) is not None and not answer.done():
                    answer.set_result(block)
            case PromptRefused(number, error):
                if (answer := self._answers.get(number)) is not None and not answer.done():
                    answer.set_exception(error)
            case SetTimer(at):
                self._set_timer(at)
            case _:
                assert_never(command)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay_s = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._handle, TimePassed())
