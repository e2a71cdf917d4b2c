"""Decides everything about videos: who starts where, whose block goes next, and what losses and ends mean (laws 2, 9).

``handle(event, now)`` returns commands. Every event ends in ``_pump``, which ends what is overdue, starts who has room,
issues every block that may go, the most urgent video first, and says when time alone will allow more. Pure: knows no
clock, no loop and no process; what happened to videos is told to an observer. A video stays here, with its log, from
its request until it is forgotten.
"""

from typing import assert_never

from engine.engine_config import EngineConfig
from engine.errors import VIDEO_FAILURES, HiarError, Overloaded, UnknownVideo, VideoFailed, WorkerLost
from engine.front import events
from engine.front.admission import HOLDING, retry_after_s
from engine.front.census import census
from engine.front.dispatch import Dispatch
from engine.front.events import Command, Event, OfAll, OfCaller, OfReader, SetTimer, Wake
from engine.front.keeping import Shelf
from engine.front.log import InitSegment
from engine.front.milestones import Milestones
from engine.front.prompts import Prompts
from engine.front.queue import Queue
from engine.front.readers import Readers
from engine.front.recovery import Recoveries
from engine.front.tickets import fragment_of
from engine.front.video import Turn, Video, VideoState, VideoStatus
from engine.law.placement import Plan
from engine.messages import (
    BlockDone,
    BlockRepeated,
    InitReady,
    LatentsSaved,
    OfVideo,
    PromptEncoded,
    VideoBroken,
    VideoClosed,
)
from engine.observe import Observer
from engine.request import EndReason


class Desk:
    """All videos of an engine."""

    def __init__(self, config: EngineConfig, observer: Observer) -> None:
        self._config, self._observer = config, observer
        self._milestones = Milestones(observer)
        self._prompts = Prompts(config.manifest.rollout, observer)
        self._recoveries = Recoveries(config)
        self._readers = Readers(config, self._milestones)
        self._shelf = Shelf(config)
        self._queue = Queue()
        self._commands: list[Command] = []
        self._dispatch = Dispatch(config, self._queue, self._recoveries, self._milestones, self._commands)
        self._videos: dict[str, Video] = {}
        self._live: dict[Video, None] = {}
        """Those of them that have not ended, in the order in which they came."""
        self._now = 0.0

    # --- questions ---

    @property
    def live(self) -> tuple[Video, ...]:
        """All that have not ended."""
        return tuple(self._live)

    @property
    def videos(self) -> tuple[Video, ...]:
        """All that are not forgotten, the oldest first."""
        return tuple(video for video in self._videos.values() if not video.is_forgotten)

    def video(self, video_id: str) -> Video:
        """One that is not forgotten. Raises ``UnknownVideo``."""
        video = self._videos.get(video_id)
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
            case events.Joined() | events.BlockTaken() | events.Left():
                self._attend(event)
            case events.Asked() | events.PromptAsked() | events.Cancelled() | events.Stopped() | events.Forgotten():
                self._obey(event)
            case events.GroupServes() | events.GroupLost() | events.Drained() | events.Looked():
                self._turn(event)
            case events.TimePassed():
                pass
            case _:
                assert_never(event)

    def _attend(self, event: OfReader) -> None:
        """What readers do."""
        video = event.video
        match event:
            case events.Joined(_, cursor):
                self._readers.joined(video, cursor)
            case events.BlockTaken(_, cursor):
                self._readers.taken(video, cursor, self._now)
            case events.Left(_, cursor, reason):
                if self._readers.left(video, cursor, reason, self._now):
                    self._stop(video, reason)
            case _:
                assert_never(event)
        self._note(video)

    def _obey(self, event: OfCaller) -> None:
        """What callers ask of one video."""
        match event:
            case events.Asked(video):
                self._admit(video)
            case events.PromptAsked(video, text, number):
                self._commands += self._prompts.change(video, text, number, self._now)
            case events.Cancelled(video):
                self._end_at_boundary(video, EndReason.CANCELLED, EndReason.CANCELLED)
            case events.Stopped(video, reason):
                self._stop(video, reason)
            case events.Forgotten(video):
                self._stop(video, EndReason.CANCELLED)
                self._forget(video)
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
                    self._end_at_boundary(video, EndReason.DRAIN, refusal)
            case events.Looked():
                for video in self._live:
                    self._milestones.watched(video, self._now)
            case _:
                assert_never(event)

    def _admit(self, video: Video) -> None:
        line = [*self._queue.requests, video.request]
        if len(line) - self._dispatch.num_startable(line) > self._config.max_queue:
            count = census(self._live)
            message = f"{count.running} videos run and {count.waiting} wait; there is no room for another"
            raise Overloaded(message, retry_after_s(self._live))
        self._videos[video.id] = video
        self._live[video] = None
        self._queue.add(video)
        self._commands += self._prompts.begin(video, self._now)

    def _pump(self) -> float | None:
        """Do all that may be done now; returns when time alone allows more."""
        for lost in self._recoveries.overdue(self._now):
            self._give_up(lost, self._recoveries.too_late)
        for left in self._readers.overdue(self._now):
            assert left.alone is not None
            self._stop(left, left.alone.reason)
        while self._prompts.prepared:
            self._queue.prepared(self._prompts.prepared.pop())
        next_at = self._dispatch.pump(self._now)
        for expired in self._shelf.overdue(self._now):
            del self._videos[expired.id]
        others = (self._recoveries.next_overdue_at, self._readers.next_overdue_at, self._shelf.next_at)
        return min((moment for moment in (next_at, *others) if moment is not None), default=None)

    # --- groups ---

    def _serve(self, plan: Plan) -> None:
        """Take up what the last group lost, and go on."""
        self._dispatch.serve(plan)
        self._commands += self._prompts.ask_again()
        for video in self._recoveries.waiting():
            block = self._recoveries.way_back(video, plan)
            if block is None:
                self._give_up(video, WorkerLost("too little is known of the video to go on with new workers"))
                continue
            self._dispatch.reopen(video, block, self._now)
            self._observer.video_recovered(exact=block == 0)

    def _lose_group(self, loss: events.GroupLost) -> None:
        """Videos that held pages wait for the next group, if there will be one."""
        self._dispatch.stop()
        for video in self.live:
            video.turn = Turn()
            if loss.for_good:
                self._give_up(video, loss.error)
            elif video.state in HOLDING:
                self._lose(video, self._recoveries.outcome(video, loss, self._now))
        if loss.for_good:
            self._commands += self._prompts.give_up(loss.error)

    def _lose(self, video: Video, outcome: EndReason | HiarError | None) -> None:
        """Its workers are gone; it waits for the next where that ends nothing."""
        video.closing = None
        if outcome is None:
            self._move(video, VideoState.RECOVERING)
        else:
            self._give_up(video, outcome)

    # --- what workers say ---

    def _hear(self, rank: int, message: PromptEncoded | OfVideo) -> None:
        if isinstance(message, PromptEncoded):
            self._commands += self._prompts.answer(message, self._now)
            return
        video = self._videos.get(message.video)
        if video is not None and video in self._live:  # otherwise it ended while the message was under way
            self._hear_of(video, rank, message)

    def _hear_of(self, video: Video, rank: int, message: OfVideo) -> None:
        match message:
            case InitReady():
                video.log.init_segment = InitSegment(message.data, message.codecs)
            case BlockDone():
                self._block_done(video, message)
            case BlockRepeated():
                video.progress.returned = message.block + 1
            case LatentsSaved():
                video.log.save(message)
                video.log.forget_saved_before(video.progress.done)
                self._dispatch.finished_alone(video, message.block, message.latents, self._now)
            case VideoBroken():
                self._finish(video, VIDEO_FAILURES.get(message.code, VideoFailed)(message.message))
                self._abandon(video)
            case VideoClosed():
                self._closed_at(video, rank)
            case _:
                assert_never(message)
        self._note(video)

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
        self._commands.append(Wake(video))

    def _closed_at(self, video: Video, rank: int) -> None:
        """A worker has freed the video's pages; the last one to do so ends it."""
        assert video.closing is not None, f"video {video.id} was closed by nobody"
        video.closing.open_ranks.discard(rank)
        if not video.closing.open_ranks:
            self._give_up(video, video.closing.reason)

    # --- ends ---

    def _end_at_boundary(self, video: Video, reason: EndReason, before_start: EndReason | HiarError) -> None:
        """End a video behind the blocks that have tickets; one that has not begun ends with ``before_start``."""
        match video.state:
            case VideoState.QUEUED:
                self._give_up(video, before_start)
            case VideoState.RUNNING:
                self._move(video, VideoState.CLOSING)
                self._dispatch.close_behind_blocks(video, reason)
            case VideoState.RECOVERING:
                self._give_up(video, reason)
            case VideoState.CLOSING | VideoState.ENDED:
                pass

    def _stop(self, video: Video, reason: EndReason) -> None:
        """End a video at once."""
        if video.state != VideoState.ENDED:
            self._finish(video, reason)
            self._abandon(video)

    def _abandon(self, video: Video) -> None:
        """Free a video's pages without making what is under way. How it ended is decided."""
        match video.state:
            case VideoState.QUEUED | VideoState.RECOVERING:
                self._remove(video)
            case VideoState.RUNNING:
                self._dispatch.cancel(video)
                self._move(video, VideoState.CLOSING)
                self._dispatch.close_behind_blocks(video, EndReason.CANCELLED)
            case VideoState.CLOSING:
                self._dispatch.cancel(video)
            case VideoState.ENDED:
                pass

    def _give_up(self, video: Video, outcome: EndReason | HiarError) -> None:
        self._finish(video, outcome)
        self._remove(video)

    def _finish(self, video: Video, outcome: EndReason | HiarError) -> None:
        self._milestones.watched(video, self._now)
        video.finish(outcome)
        self._note(video)
        self._commands.append(Wake(video))

    def _remove(self, video: Video) -> None:
        """It holds nothing any more but its log, for readers."""
        del self._live[video]
        video.ended_at = self._now
        self._milestones.ended(video, self._now)
        self._queue.drop(video)
        self._move(video, VideoState.ENDED)
        video.log.close()
        if video.is_forgotten:
            del self._videos[video.id]
        else:
            self._shelf.put(video)

    def _forget(self, video: Video) -> None:
        """Its id means nothing any more. One whose pages are not free yet is dropped when they are."""
        if video.is_forgotten:
            return
        video.is_forgotten = True
        if video.state == VideoState.ENDED:
            self._shelf.drop(video)
            del self._videos[video.id]

    def _move(self, video: Video, state: VideoState) -> None:
        video.move(state)
        self._note(video)
        self._commands.append(Wake(video))

    def _note(self, video: Video) -> None:
        """What decides about its next block changed."""
        self._dispatch.note(video, self._now)
