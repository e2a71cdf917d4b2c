"""Opens videos on chains and issues their blocks: the tickets of one worker group, in their global order (law 2).

Every open is the same operation: from the log at block n. For a new video n is 0; one whose workers were lost is made
again from 0, or restored to the first block that is not in its log. Pure; what is to be sent is appended to the desk's
commands.
"""

from engine.engine_config import EngineConfig
from engine.front.events import Command, SendChain, Wake
from engine.front.milestones import Milestones
from engine.front.queue import Queue
from engine.front.recovery import Recoveries
from engine.front.tickets import block_ticket, context_ticket, open_ticket
from engine.front.turns import Turns
from engine.front.video import Closing, Video, VideoState
from engine.law.placement import Plan
from engine.messages import Cancel, CloseTicket, Ticket
from engine.request import EndReason, TensorBytes, VideoRequest


class Dispatch:
    """What is sent to the chains of the group that serves, if one does."""

    def __init__(
        self, config: EngineConfig, queue: Queue, recoveries: Recoveries, milestones: Milestones, out: list[Command]
    ) -> None:
        self._config, self._queue, self._recoveries = config, queue, recoveries
        self._milestones, self._out = milestones, out
        self.plan: Plan | None = None
        self._turns: Turns | None = None
        """What is served, and places and turns on it; None while no group is."""

    def serve(self, plan: Plan) -> None:
        """A group serves."""
        self.plan, self._turns = plan, Turns(self._config, plan)

    def stop(self) -> None:
        """None does."""
        self.plan = self._turns = None

    def num_startable(self, line: list[VideoRequest]) -> int:
        """How many of those who wait, in order, could start at once."""
        return 0 if self._turns is None else self._turns.num_startable(line)

    def note(self, video: Video, now: float) -> None:
        """Its progress, state, readers or outcome changed, and with it what it takes of its chain."""
        if self._turns is not None:
            self._turns.note(video, now)

    def pump(self, now: float) -> float | None:
        """Start who has room, then issue every block that may go; returns when the next may that waits for time."""
        if self._turns is None or self.plan is None:
            return None
        while (video := self._queue.first()) is not None:
            chain = self._turns.room(video.request)
            if chain is None:
                break
            self._queue.drop(video)
            self._start(video, chain, self.plan, now)
        while (next_one := self._turns.next(now)) is not None:
            self._issue(next_one, self.plan, now)
        return self._turns.next_at

    def reopen(self, video: Video, block: int, now: float) -> None:
        """Open a lost video again: made again from its first block, or restored to where ``block`` is the next."""
        assert self._turns is not None
        chain = self._turns.room(video.request)
        self._open(video, video.chain or 0 if chain is None else chain, block, now)

    def close_behind_blocks(self, video: Video, reason: EndReason | None) -> None:
        """Send the close ticket: blocks that have tickets are still made. The caller moves the video's state.

        ``reason``: what the video ends with; None lets it sleep.
        """
        assert self.plan is not None and video.chain is not None
        ranks = {part.rank for part in self.plan.chains[video.chain]}
        video.closing = Closing(reason=reason, open_ranks=ranks)
        self._send(video, CloseTicket(video=video.id))

    def cancel(self, video: Video) -> None:
        """Nobody waits any more for what is under way."""
        self._send(video, Cancel(video=video.id))

    def finished_alone(self, video: Video, block: int, latents: TensorBytes, now: float) -> None:
        """The blocks behind one that was finished alone may go, with its latents before them."""
        if video.progress.awaited != block or video.state != VideoState.RUNNING:
            return  # it ends, or went on by other workers
        self._send(video, context_ticket(video, block, latents))
        video.progress.awaited = None
        self.note(video, now)

    def _start(self, video: Video, chain: int, plan: Plan, now: float) -> None:
        """Open a video that waited: a new one, or one that slept."""
        if video.started_at is None:
            self._open(video, chain, -video.progress.before, now)
            self._milestones.started(video, now)
            if video.num_restored > 0:
                self._recoveries.made_again(video)
                self._milestones.recovered(video)
            return
        block = self._recoveries.way_back(video, plan)
        assert block is not None, f"video {video.id} slept without a way back"
        self._open(video, chain, block, now)
        self._milestones.woken(video)

    def _open(self, video: Video, chain: int, block: int, now: float) -> None:
        video.chain = chain
        video.progress.issued = video.progress.returned = block
        video.progress.awaited = None
        video.steps.forget_from(video.progress.done)
        video.move(VideoState.RUNNING)
        self._out.append(Wake(video))
        self.note(video, now)
        self._send(video, open_ticket(video, block, video.log.opening_prompt(block)))
        for ticket in video.log.restoring_tickets(block):
            self._send(video, ticket)

    def _issue(self, video: Video, plan: Plan, now: float) -> None:
        progress, block = video.progress, video.progress.issued
        change = video.log.prompt_change(block)
        if change is not None:
            self._send(video, change)
        ticket = block_ticket(video, block, save=self._recoveries.needs_saving(progress.before + block, plan))
        progress.issued += 1
        progress.awaited = block if ticket.alone and not ticket.last else None
        self.note(video, now)
        self._send(video, ticket)
        if progress.all_issued:
            video.move(VideoState.CLOSING)
            self.note(video, now)
            self.close_behind_blocks(video, progress.whole_reason)

    def _send(self, video: Video, message: Ticket | Cancel) -> None:
        assert video.chain is not None, f"video {video.id} has no chain"
        self._out.append(SendChain(video.chain, message))
