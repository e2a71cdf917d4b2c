"""Carries out what the desk decides, on one event loop: sends, wakes, and comes back when time has passed."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable
from typing import Protocol, assert_never

from engine.engine_config import EngineConfig
from engine.errors import HiarError, ModelChanged
from engine.front import events
from engine.front.census import Census, census
from engine.front.desk import Desk
from engine.front.events import Ask, Command, Event, PromptRefused, PromptSet, SendChain, SetTimer, Wake
from engine.front.handle import LoopBell, VideoHandle
from engine.front.kept import KeptVideo, PastVideo
from engine.front.log import BlockLog, MemoryStore
from engine.front.pacing import Cursor, Progress
from engine.front.readers import start_reading
from engine.front.refill import refill
from engine.front.tickets import num_given
from engine.front.video import Video, VideoStatus
from engine.law.placement import Plan
from engine.messages import Cancel, ForFront, Question, Ticket
from engine.observe import Observer
from engine.request import EndReason, VideoRequest

Clock = Callable[[], float]


class Workers(Protocol):
    """The way to the workers."""

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """To every worker of a chain."""
        ...

    def ask(self, question: Question) -> None:
        """To the one that embeds text and encodes pictures."""
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

    def open(
        self, request: VideoRequest, linger_s: float | None, keep: Callable[[str], KeptVideo] | None = None
    ) -> VideoHandle:
        """Queue a new video. Raises ``Overloaded`` when the queue is full; then ``keep`` is not called."""
        self.desk.require_room(request)
        video = self._video(f"video_{secrets.token_hex(12)}", request, linger_s, time.time(), self._clock())
        video.kept = None if keep is None else keep(video.id)
        self._handle(events.Asked(video))
        return VideoHandle(video, self)

    def restore(self, past: PastVideo, kept: KeptVideo, change: ModelChanged | None) -> VideoHandle:
        """Queue a past video, or end it: when it is whole, or with ``change``."""
        now, age_s = self._clock(), max(0.0, time.time() - past.created_at)
        video = self._video(past.id, past.request, None, past.created_at, now - age_s)
        video.kept = kept
        refill(video, past, now)
        self._handle(events.Restored(video, change, past.is_paused))
        return VideoHandle(video, self)

    def _video(
        self, video_id: str, request: VideoRequest, linger_s: float | None, created_at: float, opened_at: float
    ) -> Video:
        rollout = self._config.manifest.rollout
        is_endless = request.seconds is None or request.is_cut
        keep = self._config.keep_endless if is_endless else self._config.keep
        progress = Progress(request=request, rollout=rollout, opened_at=opened_at)
        given = num_given(request, rollout)
        return Video(
            video_id,
            progress,
            LoopBell(),
            BlockLog(video_id, rollout, keep, MemoryStore(), num_given=given, before=progress.before),
            linger_s=linger_s,
            created_at=created_at,
        )

    def video(self, video_id: str) -> VideoHandle:
        """One that is not forgotten. Raises ``UnknownVideo``."""
        return VideoHandle(self.desk.video(video_id), self)

    @property
    def videos(self) -> tuple[VideoHandle, ...]:
        """All that are not forgotten, the oldest first."""
        return tuple(VideoHandle(video, self) for video in self.desk.videos)

    def census(self) -> Census:
        """Count the videos."""
        return census(self.desk.live)

    def count_stalls(self) -> None:
        """Tell the observer what stands still, up to now."""
        self._handle(events.Looked())

    def start_reading(self, video: Video, from_block: int | None) -> Cursor:
        """A cursor that begins at a block; None is the newest one. Raises ``BlockGone`` or ``BlockTooEarly``."""
        return start_reading(video, from_block, self._config)

    def join(self, video: Video, cursor: Cursor) -> None:
        """A reader begins."""
        self._handle(events.Joined(video, cursor))

    def taken(self, video: Video, cursor: Cursor) -> None:
        """A reader took a block: playback runs, and there may be room for the next."""
        self._handle(events.BlockTaken(video, cursor))

    def poll(self, video: Video, block: int | None, hold_s: float) -> None:
        """Somebody asks for what there is."""
        self._handle(events.Polled(video, block, hold_s))

    def leave(self, video: Video, cursor: Cursor, reason: EndReason) -> None:
        """A reader is gone."""
        self._handle(events.Left(video, cursor, reason))

    def pause(self, video: Video) -> None:
        """Begin no more blocks of a video. Raises ``Conflict`` if it ends."""
        self._handle(events.Paused(video))

    def resume(self, video: Video) -> None:
        """Let a paused video go on. Raises ``Conflict`` if it ends."""
        self._handle(events.Resumed(video))

    def stored(self, video: Video) -> None:
        """More of a video is stored."""
        self._handle(events.Stored(video))

    def fail(self, video: Video, error: HiarError) -> None:
        """End a video at once with an error."""
        self._handle(events.Failed(video, error))

    def cancel(self, video: Video) -> None:
        """End a video at the next block boundary."""
        self._handle(events.Cancelled(video))

    def stop(self, video: Video, reason: EndReason) -> None:
        """End a video at once."""
        self._handle(events.Stopped(video, reason))

    def forget(self, video: Video) -> None:
        """End a video at once, and let its id mean nothing any more."""
        self._handle(events.Forgotten(video))

    async def change_prompt(self, video: Video, text: str) -> int:
        """Follow another prompt from the next block that has no ticket yet; returns that block.

        Raises:
            Conflict: the video takes no more prompts.
            HiarError: no worker will embed it any more.
        """
        number = next(self._numbers)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._handle(events.PromptAsked(video, text, number))
            return await answer
        finally:
            del self._answers[number]

    def status(self, video: Video) -> VideoStatus:
        """Where a video stands."""
        return self.desk.status(video, self._clock())

    def paused_s(self, video: Video) -> float:
        """How long it was paused in all."""
        return video.progress.paused_s(self._clock())

    async def drain(self, refusal: HiarError) -> None:
        """End running videos at the next block boundary, queued ones with ``refusal``; returns when none is left."""
        self._handle(events.Drained(refusal))
        for video in self.desk.live:
            await VideoHandle(video, self).freed()

    # --- the fleet's side ---

    def serve(self, plan: Plan) -> None:
        """A worker group serves."""
        self._handle(events.GroupServes(plan))

    def group_lost(self, error: HiarError, suspects: frozenset[str], *, for_good: bool) -> None:
        """All workers are gone."""
        self._handle(events.GroupLost(error, suspects, for_good))

    def receive(self, rank: int, message: ForFront) -> None:
        """A worker's message."""
        self._handle(events.WorkerSaid(rank, message))

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
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._handle, events.TimePassed())
