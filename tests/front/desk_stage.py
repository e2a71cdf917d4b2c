"""A desk for its tests: a clock, and workers that do what they are told when they are let."""

from typing import Any

from engine.engine_config import EngineConfig
from engine.errors import (
    WorkerLost,
)
from engine.front.desk import Desk
from engine.front.events import (
    Ask,
    Asked,
    BlockTaken,
    Command,
    Event,
    GroupLost,
    GroupServes,
    Joined,
    Left,
    PromptRefused,
    PromptSet,
    SendChain,
    SetTimer,
    TimePassed,
    Wake,
    WorkerSaid,
)
from engine.front.pacing import Cursor
from engine.front.readers import start_reading
from engine.front.tickets import num_given
from engine.front.video import Video
from engine.law.placement import Plan
from engine.messages import (
    BlockDone,
    BlockRepeated,
    BlockTicket,
    CloseTicket,
    LatentsSaved,
    OpenTicket,
    PromptEncoded,
    VideoClosed,
)
from engine.observe import Observer
from engine.request import EndReason, Pace, VideoRequest
from tests.front import making

FAST = making.request(Pace.FAST)
LOSS = WorkerLost("worker 0 died")


class Stage:
    """A desk, its clock, and workers that do what they are told when they are let."""

    def __init__(self, plan: Plan | None = None, **settings: Any) -> None:
        self.config: EngineConfig = making.config(**settings)
        self.plan = plan or making.plan()
        self.desk = Desk(self.config, Observer())
        self.now = 1000.0
        self.timer: float | None = None
        self.questions: list[Any] = []
        self.tickets: list[tuple[int, Any]] = []
        """Not executed yet: chain and ticket."""
        self.sent: list[Any] = []
        """Every ticket ever sent."""
        self.answers: dict[int, int | Exception] = {}
        self.woken: list[str] = []
        self.readers: dict[str, Cursor] = {}
        """By video: the one that ``take`` is about."""
        self._first_block: dict[str, int] = {}

    def tell(self, event: Event) -> list[Command]:
        commands = self.desk.handle(event, self.now)
        assert isinstance(commands[-1], SetTimer) and not any(isinstance(one, SetTimer) for one in commands[:-1])
        for command in commands:
            match command:
                case SendChain(chain, message):
                    self.tickets.append((chain, message))
                    self.sent.append(message)
                case Ask(question):
                    self.questions.append(question)
                case PromptSet(number, block):
                    self.answers[number] = block
                case PromptRefused(number, error):
                    self.answers[number] = error
                case Wake(video):
                    self.woken.append(video.id)
                case SetTimer(at):
                    self.timer = at
        return commands

    def serve(self) -> None:
        self.tell(GroupServes(self.plan))

    def open(
        self, name: str, request: VideoRequest = FAST, *, linger_s: float | None = 0.0, is_read: bool = True
    ) -> Video:
        rollout = self.config.manifest.rollout
        video = making.video(name, request, linger_s=linger_s, rollout=rollout)
        video.progress.opened_at = self.now
        given, before = num_given(request, rollout), video.progress.before
        video.log = making.log(name, rollout, self.config.keep, num_given=given, before=before)
        self.tell(Asked(video))
        if is_read:
            self.join(video)
        return video

    def join(self, video: Video, from_block: int | None = 0) -> Cursor:
        cursor = self.readers[video.id] = start_reading(video, from_block, self.config)
        self.tell(Joined(video, cursor))
        return cursor

    def leave(
        self, video: Video, cursor: Cursor | None = None, reason: EndReason = EndReason.CLIENT_DISCONNECT
    ) -> None:
        self.tell(Left(video, cursor or self.readers[video.id], reason))

    def ready(self, video: Video, cursor: Cursor | None = None) -> int:
        """Blocks that a reader can take."""
        return video.log.next_block - (cursor or self.readers[video.id]).next_block

    def embed(self) -> None:
        while self.questions:
            question = self.questions.pop(0)
            self.tell(WorkerSaid(0, PromptEncoded(request=question.request, embedding=making.embedding(question.text))))

    def execute(self, most: int | None = None) -> None:
        """Let workers execute tickets, also those that follow from them."""
        while self.tickets and most != 0:
            chain, ticket = self.tickets.pop(0)
            self._execute(chain, ticket)
            most = None if most is None else most - 1

    def _execute(self, chain: int, ticket: Any) -> None:
        ranks = [part.rank for part in self.plan.chains[chain]]
        if isinstance(ticket, OpenTicket):
            self._first_block[ticket.video] = ticket.first_block
        elif isinstance(ticket, BlockTicket):
            if ticket.alone:
                self.tell(WorkerSaid(ranks[-1], self._clean_latents(ticket)))
            self.tell(WorkerSaid(ranks[-1], self._block(ticket)))
        elif isinstance(ticket, CloseTicket):
            for rank in ranks:
                self.tell(WorkerSaid(rank, VideoClosed(video=ticket.video, pages_used=0)))

    def _clean_latents(self, ticket: BlockTicket) -> LatentsSaved:
        stage = self.config.manifest.rollout.num_stages - 1
        latents = making.embedding(f"clean {ticket.block}")
        return LatentsSaved(video=ticket.video, block=ticket.block, stage=stage, latents=latents)

    def _block(self, ticket: BlockTicket) -> BlockDone | BlockRepeated:
        if ticket.block < self._first_block[ticket.video]:
            return BlockRepeated(video=ticket.video, block=ticket.block)
        return BlockDone(
            video=ticket.video,
            block=ticket.block,
            num_frames=ticket.num_frames,
            data=f"{ticket.video}{ticket.block}".encode(),
            latents=None,
            decode_s=0.0,
            encode_s=0.0,
        )

    def take(self, video: Video, count: int | None = None, cursor: Cursor | None = None) -> list[bytes]:
        """A reader takes fragments: all there are, unless it is said how many."""
        reader, taken = cursor or self.readers[video.id], []
        for _ in range(self.ready(video, reader) if count is None else count):
            taken.append(video.log.fragment(reader.next_block).data)
            self.tell(BlockTaken(video, reader))
        return taken

    def lose(self, *suspects: str, for_good: bool = False) -> None:
        self.tickets.clear()
        self.tell(GroupLost(LOSS, frozenset(suspects), for_good))

    def pass_time(self) -> float:
        """Until the timer; returns the moment."""
        assert self.timer is not None, "nothing waits for time"
        self.now = self.timer
        self.tell(TimePassed())
        return self.now

    def kinds(self, video: Video) -> list[str]:
        return [type(ticket).__name__ for ticket in self.sent if ticket.video == video.id]
