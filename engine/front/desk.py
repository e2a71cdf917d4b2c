"""Decides everything about videos: who starts where, whose block goes next, and what losses and ends mean (laws 2, 9).

``handle(event, now)`` returns commands. Every event ends in ``_pump``, which starts who has room, issues every block
that may go, the most urgent video first, and says when the next may go that waits for time alone. Pure: knows no
clock, no loop and no process; what happened to videos is told to an observer.
"""

from typing import assert_never

from engine.config import EngineConfig
from engine.errors import VIDEO_FAILURES, HiarError, Overloaded, UnknownVideo, VideoFailed, WorkerLost
from engine.front.admission import HOLDING, retry_after_s
from engine.front.events import (
    Asked,
    BlockTaken,
    Command,
    Drained,
    Event,
    GroupLost,
    GroupServes,
    Left,
    PromptAsked,
    SendChain,
    SetTimer,
    TimePassed,
    Wake,
    WorkerSaid,
)
from engine.front.milestones import Milestones
from engine.front.prompts import Prompts
from engine.front.queue import Queue
from engine.front.recovery import Recoveries
from engine.front.tickets import block_ticket, open_ticket
from engine.front.turns import Turns
from engine.front.video import Closing, Turn, Video, VideoState, VideoStatus
from engine.law.placement import Plan
from engine.messages import (
    BlockDone,
    BlockRepeated,
    Cancel,
    CloseTicket,
    InitReady,
    LatentsSaved,
    OfVideo,
    PromptEncoded,
    TensorBytes,
    Ticket,
    VideoBroken,
    VideoClosed,
)
from engine.observe import Observer
from engine.request import EndReason, Fragment


class Desk:
    """All videos of an engine."""

    def __init__(self, config: EngineConfig, observer: Observer) -> None:
        self._config, self._observer = config, observer
        self._milestones = Milestones(observer)
        self._prompts = Prompts(config.manifest.rollout, observer)
        self._recoveries = Recoveries(config)
        self._videos: dict[str, Video] = {}
        self._queue = Queue()
        self._plan: Plan | None = None
        self._turns: Turns | None = None
        """What is served, and places and turns on it; None while no group is."""
        self._now = 0.0
        self._commands: list[Command] = []

    @property
    def num_running(self) -> int:
        """Videos that hold pages, or held some until their group was lost."""
        states = HOLDING | {VideoState.RECOVERING}
        return sum(video.state in states for video in self._videos.values())

    @property
    def num_waiting(self) -> int:
        """Videos in the queue."""
        return len(self._queue)

    @property
    def blocks_buffered(self) -> int:
        """Blocks that wait for their readers."""
        return sum(video.progress.done - video.progress.taken for video in self._videos.values())

    @property
    def videos(self) -> tuple[Video, ...]:
        """All that have not ended."""
        return tuple(self._videos.values())

    def video(self, video_id: str) -> Video:
        """One that has not ended. Raises ``UnknownVideo``."""
        try:
            return self._videos[video_id]
        except KeyError:
            raise UnknownVideo(f"there is no video {video_id}", "id") from None

    def status(self, video: Video, now: float) -> VideoStatus:
        """Where a video stands."""
        return video.describe(self._queue.position(video), now)

    def handle(self, event: Event, now: float) -> list[Command]:
        """What is to be done about an event, in order; the last command sets the timer.

        Raises:
            Overloaded: the queue is full; only for ``Asked``, and nothing has changed then.
        """
        self._now, self._commands = now, []
        self._decide(event)
        self._commands.append(SetTimer(self._pump()))
        return self._commands

    def _decide(self, event: Event) -> None:
        match event:
            case Asked(video):
                self._admit(video)
            case PromptAsked(video, text, number):
                self._commands += self._prompts.change(video, text, number, self._now)
            case BlockTaken(video):
                self._milestones.taken(video, video.progress.take(self._now), self._now)
                self._note(video)
            case Left(video):
                self._finish(video, EndReason.CANCELLED)
                self._abandon(video)
            case WorkerSaid(rank, message):
                self._hear(rank, message)
            case GroupServes() | GroupLost() | Drained():
                self._turn(event)
            case TimePassed():
                pass
            case _:
                assert_never(event)

    def _turn(self, event: GroupServes | GroupLost | Drained) -> None:
        """What concerns all videos."""
        match event:
            case GroupServes(plan):
                self._serve(plan)
            case GroupLost():
                self._lose_group(event)
            case Drained(refusal):
                self._drain(refusal)
            case _:
                assert_never(event)

    # --- arrivals ---

    def _admit(self, video: Video) -> None:
        if self._num_queued_with(video) > self._config.max_queue:
            message = f"{self.num_running} videos run and {len(self._queue)} wait; there is no room for another"
            raise Overloaded(message, retry_after_s(self._videos.values()))
        self._videos[video.id] = video
        self._queue.add(video)
        self._commands += self._prompts.begin(video, self._now)

    def _num_queued_with(self, video: Video) -> int:
        """Videos that would have to wait for a place if this one came too."""
        line = [*self._queue.requests, video.request]
        return len(line) - (self._turns.num_startable(line) if self._turns is not None else 0)

    # --- groups ---

    def _serve(self, plan: Plan) -> None:
        """Take up what the last group lost, and go on."""
        self._plan, self._turns = plan, Turns(self._config, plan)
        self._commands += self._prompts.ask_again()
        for video in self._recoveries.waiting():
            block = self._recoveries.way_back(video, plan)
            if block is None:
                self._give_up(video, WorkerLost("too little is known of the video to go on with new workers"))
                continue
            self._reopen(video, block)
            self._observer.video_recovered(exact=block == 0)

    def _lose_group(self, loss: GroupLost) -> None:
        """Videos that held pages wait for the next group, if there will be one."""
        self._plan = self._turns = None
        for video in list(self._videos.values()):
            video.turn = Turn()
            if loss.for_good:
                self._give_up(video, loss.error)
            elif video.state in HOLDING:
                self._lose(video, loss.error, suspected=video.id in loss.suspects)
        if loss.for_good:
            self._commands += self._prompts.give_up(loss.error)

    def _drain(self, refusal: HiarError) -> None:
        for video in list(self._videos.values()):
            match video.state:
                case VideoState.QUEUED:
                    self._give_up(video, refusal)
                case VideoState.RUNNING:
                    self._close_behind_blocks(video, EndReason.DRAIN)
                case VideoState.RECOVERING:
                    self._give_up(video, EndReason.DRAIN)
                case VideoState.CLOSING | VideoState.ENDED:
                    pass

    # --- what workers say ---

    def _hear(self, rank: int, message: PromptEncoded | OfVideo) -> None:
        if isinstance(message, PromptEncoded):
            self._commands += self._prompts.answer(message, self._now)
            return
        video = self._videos.get(message.video)
        if video is not None:  # otherwise it ended while the message was under way
            self._hear_of(video, rank, message)

    def _hear_of(self, video: Video, rank: int, message: OfVideo) -> None:
        match message:
            case InitReady():
                video.init_segment, video.codecs = message.data, message.codecs
            case BlockDone():
                self._block_done(video, message)
            case BlockRepeated():
                video.progress.returned = message.block + 1
            case LatentsSaved():
                video.told.save(message)
                video.told.forget_before(video.progress.done)
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
            return  # cancelled or broken: its reader takes no more
        assert message.block == progress.done, f"block {message.block} came, {progress.done} is next"
        progress.done += 1
        self._recoveries.note_progress(video, self._plan)
        fragment = Fragment(
            block=message.block,
            data=message.data if message.latents is None else message.latents.data,
            num_frames=message.num_frames,
            start_s=progress.start_s(message.block),
            duration_s=message.num_frames / video.request.fps,
        )
        self._milestones.made(progress, fragment, self._now)
        progress.last_done_at = self._now
        video.put(fragment)
        self._commands.append(Wake(video))

    def _closed_at(self, video: Video, rank: int) -> None:
        """A worker has freed the video's pages; the last one to do so ends it."""
        assert video.closing is not None, f"video {video.id} was closed by nobody"
        video.closing.open_ranks.discard(rank)
        if not video.closing.open_ranks:
            self._give_up(video, video.closing.reason)

    # --- tickets ---

    def _pump(self) -> float | None:
        """Do all that may be done now; returns when time alone allows more."""
        for overdue in self._recoveries.overdue(self._now):
            self._give_up(overdue, self._recoveries.too_late)
        moments = [self._recoveries.next_overdue_at]
        while self._prompts.prepared:
            self._queue.prepared(self._prompts.prepared.pop())
        if self._turns is not None and self._plan is not None:
            self._start_waiting(self._turns)
            while (video := self._turns.next(self._now)) is not None:
                self._issue(video, self._plan)
            moments.append(self._turns.next_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def _start_waiting(self, turns: Turns) -> None:
        while (video := self._queue.first()) is not None:
            chain = turns.room(video.request)
            if chain is None:
                return
            self._queue.drop(video)
            self._open(video, chain, video.told.prompt_at(0))
            self._milestones.started(video, self._now)

    def _open(self, video: Video, chain: int, embedding: TensorBytes) -> None:
        video.chain = chain
        self._move(video, VideoState.RUNNING)
        self._send(video, open_ticket(video, embedding))

    def _reopen(self, video: Video, block: int) -> None:
        """Open a lost video again: made again from block 0, or restored to where ``block`` is the next."""
        assert self._turns is not None
        chain, progress = self._turns.room(video.request), video.progress
        progress.issued = progress.returned = block
        self._open(video, video.chain or 0 if chain is None else chain, video.told.opening_prompt(block))
        for ticket in video.told.restoring_tickets(block):
            self._send(video, ticket)

    def _issue(self, video: Video, plan: Plan) -> None:
        progress, block = video.progress, video.progress.issued
        change = video.told.prompt_change(block)
        if change is not None:
            self._send(video, change)
        progress.issued += 1
        self._note(video)
        self._send(video, block_ticket(video, block, save=self._recoveries.needs_saving(block, plan)))
        if progress.all_issued:
            self._close_behind_blocks(video, EndReason.COMPLETED)

    def _send(self, video: Video, message: Ticket | Cancel) -> None:
        assert video.chain is not None, f"video {video.id} has no chain"
        self._commands.append(SendChain(video.chain, message))

    # --- ends ---

    def _close_behind_blocks(self, video: Video, reason: EndReason) -> None:
        """Send the close ticket: blocks that have tickets are still made."""
        assert self._plan is not None and video.chain is not None
        self._move(video, VideoState.CLOSING)
        ranks = {part.rank for part in self._plan.chains[video.chain]}
        video.closing = Closing(reason=reason, open_ranks=ranks)
        self._send(video, CloseTicket(video=video.id))

    def _abandon(self, video: Video) -> None:
        """Free a video's pages without making what is under way."""
        match video.state:
            case VideoState.QUEUED | VideoState.RECOVERING:
                self._remove(video)
            case VideoState.RUNNING:
                self._send(video, Cancel(video=video.id))
                self._close_behind_blocks(video, EndReason.CANCELLED)
            case VideoState.CLOSING:
                self._send(video, Cancel(video=video.id))
            case VideoState.ENDED:
                pass

    def _lose(self, video: Video, error: HiarError, *, suspected: bool) -> None:
        """Its workers are gone. One that was ending anyway ends here, at a block boundary."""
        reason = EndReason.COMPLETED if video.closing is None else video.closing.reason
        video.closing = None
        if video.has_outcome or reason != EndReason.COMPLETED or video.progress.all_done:
            self._give_up(video, reason)
        elif self._recoveries.may_wait(video, self._now, suspected=suspected):
            self._move(video, VideoState.RECOVERING)
        else:
            self._give_up(video, error)

    def _give_up(self, video: Video, outcome: EndReason | HiarError) -> None:
        self._finish(video, outcome)
        self._remove(video)

    def _finish(self, video: Video, outcome: EndReason | HiarError) -> None:
        video.finish(outcome)
        self._note(video)
        self._commands.append(Wake(video))

    def _remove(self, video: Video) -> None:
        self._videos.pop(video.id, None)
        self._milestones.ended(video)
        self._queue.drop(video)
        self._move(video, VideoState.ENDED)

    def _move(self, video: Video, state: VideoState) -> None:
        video.move(state)
        self._note(video)
        self._commands.append(Wake(video))

    def _note(self, video: Video) -> None:
        """Its progress, state or outcome changed, and with it what it takes of its chain."""
        if self._turns is not None:
            self._turns.note(video, self._now)
