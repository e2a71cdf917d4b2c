"""Decides everything about videos: who starts where, whose block goes next, and what losses and ends mean (laws 2, 9).

``handle(event, now)`` returns commands. Every event ends in ``_pump``, which ends what is overdue, starts who has room,
issues every block that may go, the most urgent video first, and says when time alone will allow more. Pure: knows no
clock, no loop and no process; what happened to videos is told to an observer. A video stays here, with its log, from
its request until it is forgotten.
"""

from typing import assert_never

from engine.engine_config import EngineConfig
from engine.errors import VIDEO_FAILURES, EncoderFailed, HiarError, Overloaded, UnknownVideo, VideoFailed, WorkerLost
from engine.front import events
from engine.front.admission import HOLDING, retry_after_s
from engine.front.census import census
from engine.front.dispatch import Dispatch
from engine.front.endings import Endings, Register
from engine.front.events import Command, Event, OfAll, OfCaller, OfReader, SetTimer, Wake
from engine.front.keeping import Shelf
from engine.front.log import InitSegment
from engine.front.milestones import Milestones
from engine.front.pausing import Pauses
from engine.front.pictures import Pictures
from engine.front.prompts import Prompts
from engine.front.queue import Queue
from engine.front.readers import Readers
from engine.front.recovery import Recoveries
from engine.front.story import Recovering
from engine.front.tickets import fragment_of, in_own_blocks
from engine.front.video import Turn, Video, VideoState, VideoStatus
from engine.law.placement import Plan
from engine.messages import (
    Beat,
    BlockDone,
    BlockRepeated,
    ForFront,
    Idle,
    InitReady,
    LatentsSaved,
    OfVideo,
    OfWork,
    PixelsEncoded,
    PixelsFailed,
    PromptEncoded,
    PromptFailed,
    VideoBroken,
    VideoClosed,
)
from engine.observe import Observer
from engine.request import EndReason, VideoRequest


class Desk:
    """All videos of an engine."""

    def __init__(self, config: EngineConfig, observer: Observer) -> None:
        self._config = config
        self._milestones = Milestones(observer)
        self._prompts = Prompts(config.manifest.rollout, observer)
        self._pictures = Pictures()
        self._recoveries = Recoveries(config)
        self._readers = Readers(config, self._milestones)
        self._shelf = Shelf(config)
        self._register = Register()
        self._queue = Queue(self._register.live)
        self._commands: list[Command] = []
        self._dispatch = Dispatch(config, self._queue, self._recoveries, self._milestones, self._commands)
        self._endings = Endings(
            self._register, self._dispatch, self._milestones, self._queue, self._shelf, self._commands
        )
        self._pauses = Pauses(config, self._dispatch, self._endings, self._milestones, self._queue)
        self._now = 0.0

    # --- questions ---

    @property
    def live(self) -> tuple[Video, ...]:
        """All that have not ended."""
        return tuple(self._register.live)

    @property
    def videos(self) -> tuple[Video, ...]:
        """All that are not forgotten, the oldest first."""
        return tuple(video for video in self._register.by_id.values() if not video.is_forgotten)

    def video(self, video_id: str) -> Video:
        """One that is not forgotten. Raises ``UnknownVideo``."""
        video = self._register.by_id.get(video_id)
        if video is None or video.is_forgotten:
            raise UnknownVideo(
                f"there is no video {video_id}; an ended one is kept for {self._config.keep_s:g} s", "id"
            )
        return video

    def status(self, video: Video, now: float) -> VideoStatus:
        """Where a video stands."""
        return video.describe(self._queue.position(video), now, self._config.keep_s)

    # --- events ---

    def handle(self, event: Event, now: float) -> list[Command]:
        """What is to be done about an event, in order; the last command sets the timer.

        Raises:
            Overloaded: the queue is full; only for ``Asked``, and nothing has changed then.
            Conflict: the video ends; only for ``Paused`` and ``Resumed``, and nothing has changed then.
        """
        self._now = now
        self._commands.clear()
        self._decide(event)
        self._commands.append(SetTimer(self._pump()))
        return list(self._commands)

    def _decide(self, event: Event) -> None:
        match event:
            case events.WorkerSaid(rank, message):
                self._hear(rank, message)
            case events.Joined() | events.BlockTaken() | events.Polled() | events.Left():
                self._attend(event)
            case events.Stored(video):
                self._milestones.stored(video, self._now)
                self._commands.append(Wake(video))
            case events.Failed(video, error):
                self._endings.fail(video, error, self._now)
            case events.GroupServes() | events.GroupLost() | events.Drained() | events.Looked():
                self._turn(event)
            case events.TimePassed():
                pass
            case _:
                self._obey(event)

    def _attend(self, event: OfReader) -> None:
        """What readers do."""
        self._readers.attend(event, self._now)
        self._dispatch.note(event.video, self._now)

    def _obey(self, event: OfCaller) -> None:
        """What callers ask of one video."""
        match event:
            case events.Asked(video):
                self._admit(video)
            case events.Restored(video, change, is_paused):
                self._restore(video, change, is_paused=is_paused)
            case events.PromptAsked(video, text, number):
                self._commands += self._prompts.change(video, text, number, self._now)
            case events.Paused(video):
                self._pauses.pause(video, self._now)
            case events.Resumed(video):
                self._pauses.resume(video, self._now)
            case events.Cancelled(video):
                self._endings.at_boundary(video, EndReason.CANCELLED, EndReason.CANCELLED, self._now)
            case events.Stopped(video, reason):
                self._endings.stop(video, reason, self._now)
            case events.Forgotten(video):
                self._endings.stop(video, EndReason.CANCELLED, self._now)
                self._endings.forget(video)
            case _:
                assert_never(event)

    def _turn(self, event: OfAll) -> None:
        """What concerns all videos."""
        match event:
            case events.GroupServes(plan):
                self._serve(plan)
            case events.GroupLost():
                self._lose_group(event)
            case events.Drained(refusal):
                for video in self.live:
                    self._endings.at_boundary(video, EndReason.DRAIN, refusal, self._now)
            case events.Looked():
                for video in self._register.live:
                    self._milestones.watched(video, self._now)
            case _:
                assert_never(event)

    def require_room(self, request: VideoRequest) -> None:
        """Raise ``Overloaded`` if the queue is full for such a video."""
        line = [*self._queue.requests, request]
        if len(line) - self._dispatch.num_startable(line) > self._config.max_queue:
            count = census(self._register.live)
            message = f"{count.running} videos run and {count.waiting} wait; there is no room for another"
            raise Overloaded(message, retry_after_s(self._register.live))

    def _admit(self, video: Video) -> None:
        self.require_room(video.request)
        self._queue_up(video)

    def _restore(self, video: Video, change: HiarError | None, *, is_paused: bool) -> None:
        outcome = video.progress.whole_reason if video.progress.all_done else change
        if outcome is None:
            self._queue_up(video)
            if is_paused:
                self._pauses.pause(video, self._now)
        else:
            self._register.add(video)
            self._endings.give_up(video, outcome, self._now)

    def _queue_up(self, video: Video) -> None:
        self._register.add(video)
        self._queue.add(video)
        has_picture = video.request.start is not None
        self._commands += self._pictures.begin(video) if has_picture else self._prompts.begin(video, self._now)

    def _pump(self) -> float | None:
        """Do all that may be done now; returns when time alone allows more."""
        for lost in self._recoveries.overdue(self._now):
            self._endings.give_up(lost, self._recoveries.too_late, self._now)
        for silent in self._readers.silent(self._now):
            self._dispatch.note(silent, self._now)
        for left in self._readers.overdue(self._now):
            assert left.alone is not None
            self._endings.stop(left, left.alone.reason, self._now)
        while self._prompts.failed:
            video, failure = self._prompts.failed.pop()
            self._endings.give_up(video, failure, self._now)
        self._pauses.act(self._now)
        while self._prompts.prepared:
            self._queue.prepared(self._prompts.prepared.pop())
        next_at = self._dispatch.pump(self._now)
        self._commands += [Wake(video) for video in self._queue.tell_positions()]
        for expired in self._shelf.overdue(self._now):
            del self._register.by_id[expired.id]
        others = (self._recoveries.next_overdue_at, self._readers.next_at, self._pauses.next_at, self._shelf.next_at)
        return min((moment for moment in (next_at, *others) if moment is not None), default=None)

    # --- groups ---

    def _serve(self, plan: Plan) -> None:
        """Take up what the last group lost, and go on."""
        self._dispatch.serve(plan)
        self._commands += [*self._pictures.ask_again(), *self._prompts.ask_again()]
        for video in self._recoveries.waiting():
            block = self._recoveries.way_back(video, plan)
            if block is None:
                error = WorkerLost("too little is known of the video to go on with new workers")
                self._endings.give_up(video, error, self._now)
                continue
            self._dispatch.reopen(video, block, self._now)
            self._milestones.recovered(video)

    def _lose_group(self, loss: events.GroupLost) -> None:
        """Videos that held pages wait for the next group, if there will be one."""
        self._dispatch.stop()
        for video in self.live:
            video.turn = Turn()
            if loss.for_good:
                self._endings.give_up(video, loss.error, self._now)
            elif video.state in HOLDING:
                self._lose(video, self._recoveries.outcome(video, loss, self._now))
        if (failed := self._pictures.worker_lost()) is not None:
            self._endings.give_up(failed, loss.error, self._now)
        if loss.for_good:
            self._commands += self._prompts.give_up(loss.error)

    def _lose(self, video: Video, outcome: EndReason | HiarError | None) -> None:
        """Its workers are gone; it waits for the next where that ends nothing."""
        video.closing = None
        if outcome is not None:
            self._endings.give_up(video, outcome, self._now)
        elif video.progress.is_paused:
            self._pauses.lay_down(video, self._now)
        else:
            video.story.tell(Recovering())
            self._endings.move(video, VideoState.RECOVERING, self._now)

    # --- what workers say ---

    def _hear(self, rank: int, message: ForFront) -> None:
        match message:
            case PromptEncoded() | PromptFailed():
                self._commands += self._prompts.answer(message, self._now)
            case PixelsEncoded():
                if (video := self._pictures.answer(message)) is not None:
                    self._commands += self._prompts.begin(video, self._now)
            case PixelsFailed():
                if (refused := self._pictures.refused(message)) is not None:
                    self._endings.break_off(*refused, self._now)
            case Beat() | Idle():
                self._note_work(message)
            case _:
                video = self._register.by_id.get(message.video)
                if video is not None and video in self._register.live:  # else it ended while this was under way
                    self._hear_of(video, rank, in_own_blocks(video, message))

    def _note_work(self, work: OfWork) -> None:
        for span in work.spans:
            if (video := self._register.by_id.get(span.video)) is not None:
                self._milestones.worked(video, span)

    def _hear_of(self, video: Video, rank: int, message: OfVideo) -> None:
        match message:
            case InitReady():
                self._begin(video, InitSegment(message.data, message.codecs))
            case BlockDone():
                self._block_done(video, message)
            case BlockRepeated():
                video.progress.returned = message.block + 1
            case LatentsSaved():
                video.log.save(message)
                video.log.forget_saved_before(video.progress.done)
                self._dispatch.finished_alone(video, message.block, message.latents, self._now)
            case VideoBroken():
                failure = VIDEO_FAILURES.get(message.code, VideoFailed)(message.message)
                self._endings.break_off(video, failure, self._now)
            case VideoClosed():
                self._closed_at(video, rank)
            case _:
                assert_never(message)
        self._dispatch.note(video, self._now)

    def _begin(self, video: Video, init_segment: InitSegment) -> None:
        known = video.log.init_segment
        if known is None:
            video.log.init_segment = init_segment
            self._milestones.begun(video, init_segment)
        elif known != init_segment:
            error = EncoderFailed("the video encoder of the new workers makes another stream than the one before")
            self._endings.break_off(video, error, self._now)

    def _block_done(self, video: Video, message: BlockDone) -> None:
        progress = video.progress
        progress.returned = message.block + 1
        if video.has_outcome:
            return  # stopped or broken: it is told to end before this block
        fragment = fragment_of(video, message)
        self._milestones.watched(video, self._now)
        self._milestones.made(video, fragment, self._now)
        video.log.append(fragment, unread=progress.taken if progress.leader is None else progress.leader.next_block)
        progress.done, progress.last_done_at = progress.done + 1, self._now
        self._recoveries.note_progress(video, self._dispatch.plan)
        self._readers.made(video, self._now)
        self._milestones.added(video, fragment, self._now)
        self._commands.append(Wake(video))

    def _closed_at(self, video: Video, rank: int) -> None:
        """A worker has freed the video's pages; the last one to do so ends it, or lets it sleep."""
        assert video.closing is not None, f"video {video.id} was closed by nobody"
        video.closing.open_ranks.discard(rank)
        if video.closing.open_ranks:
            return
        if video.closing.reason is None:
            self._pauses.lay_down(video, self._now)
        else:
            self._endings.give_up(video, video.closing.reason, self._now)
