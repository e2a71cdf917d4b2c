"""The real engine without a process: workers that make small, well-formed MP4 at once, or as slowly as a test likes.

A chain of them takes its tickets in order, one at a time, as real workers do. All of it runs on the engine's loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import (
    Dtypes,
    Engine,
    EngineConfig,
    EngineFacts,
    EngineState,
    FleetView,
    KeptVideo,
    LossReason,
    Manifest,
    Observer,
    StartError,
    StartTimes,
    VideoFailed,
    VideoHandle,
    VideoRequest,
    WorkerLoad,
)
from engine.config import RolloutConfig, TransformerConfig, VideoConfig
from engine.law.placement import PassCosts, place
from engine.law.schedule import start_blocks
from engine.law.window import writes_pages
from engine.messages import (
    BlockDone,
    BlockRepeated,
    BlockTicket,
    Cancel,
    CloseTicket,
    EncodePixels,
    EncodePrompt,
    ForFront,
    InitReady,
    LatentsSaved,
    OpenTicket,
    PixelsEncoded,
    PixelsFailed,
    PromptEncoded,
    PromptFailed,
    Question,
    Ticket,
    VideoBroken,
    VideoClosed,
)
from engine.request import Pixels, TensorBytes
from tests.instant_work import passes_of
from tests.small_mp4 import CODECS, SmallMedia

NUM_PAGES = 16
"""Of a worker."""
COSTS = PassCosts(denoise_s=(0.01,) * 4, decode_s=0.01)
TIMES = StartTimes(measure_s=0.0, load_s=0.0, warm_up_s=0.0, restart_s=0.0)
MANIFEST = Manifest(
    name="instant",
    description="made-up media",
    transformer=TransformerConfig(dim=16, ffn_dim=16, num_heads=1, num_layers=1, text_dim=8, text_len=8),
    rollout=RolloutConfig(),
    video=VideoConfig(sizes=((416, 240), (832, 480)), fps=16, max_fps=60),
    transformer_file=Path("none"),
)
"""Blocks have 9 frames, then 12 each."""


@dataclass
class Behaviour:
    """What the workers do; tests change it while they run."""

    block_s: float = 0.0
    """Time a block takes in its chain."""
    first_block_s: float | None = None
    """The same for a video's first block; None: as any other."""
    payload_bytes: int = 100
    media: type[SmallMedia] = SmallMedia
    """What makes the bytes of a video."""
    fail_at: int | None = None
    """The block at which each video breaks, with ``failure``."""
    failure: VideoFailed | None = None
    prompt_failure: VideoFailed | None = None
    """What the next prompts that are to be embedded end in."""
    holds_prompts: bool = False
    """Embed nothing until ``InstantWorkers.answer_prompts``: until then new videos wait in the queue."""
    takes_pictures: bool = True
    fails_pictures: bool = False
    """Have no memory to encode one."""
    stays_starting: bool = False
    """Serve only when told to."""
    start_failure: StartError | None = None


def facts(
    devices: tuple[str, ...] = ("cpu",), manifest: Manifest = MANIFEST, *, takes_pictures: bool = True
) -> EngineFacts:
    return EngineFacts(
        model=manifest.name,
        device_names=devices,
        plan=place(manifest.rollout, devices, COSTS),
        frames_per_s=600.0,
        num_pages=NUM_PAGES * len(devices),
        page_bytes=1024,
        attention="none",
        dtypes=Dtypes(activations="float32", pages="fp8", linears="float32", attention="float32"),
        decoder="none",
        encoder="none",
        codecs=CODECS,
        takes_pictures=takes_pictures,
    )


class InstantChain:
    """The workers of one chain, from the start of their group to its loss."""

    def __init__(
        self, config: EngineConfig, ranks: tuple[int, ...], behaviour: Behaviour, say: Callable[[int, ForFront], None]
    ) -> None:
        self.ranks = ranks
        self._rollout, self._behaviour, self._say = config.manifest.rollout, behaviour, say
        self._line: deque[Ticket] = deque()
        self._timer: asyncio.TimerHandle | None = None
        """Until the first of the line is done."""
        self._open: dict[str, SmallMedia] = {}
        self._next: dict[str, tuple[int, int]] = {}
        """Number and first frame of each video's next fragment."""
        self._skipped: set[str] = set()
        """Cancelled and broken videos: their tickets pass and make nothing."""

    @property
    def num_videos(self) -> int:
        return len(self._open)

    @property
    def loads(self) -> list[WorkerLoad]:
        now, used, waiting = time.time(), self.num_videos, len(self._line)
        return [
            WorkerLoad(rank=rank, heard_at=now, pages_used=used, num_pages=NUM_PAGES, tickets_waiting=waiting)
            for rank in self.ranks
        ]

    def take(self, message: Ticket | Cancel) -> None:
        if isinstance(message, Cancel):
            self._skipped.add(message.video)
            if self._line and self._line[0].video == message.video:
                self.halt()
        else:
            self._line.append(message)
        self._begin()

    def halt(self) -> None:
        """Leave the first of the line undone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        if self._timer is None and self._line:
            self._timer = asyncio.get_running_loop().call_later(self._takes_s(self._line[0]), self._end)

    def _end(self) -> None:
        self._timer = None
        self._pass(self._line.popleft())
        self._begin()

    def _takes_s(self, ticket: Ticket) -> float:
        if not isinstance(ticket, BlockTicket) or ticket.video in self._skipped:
            return 0.0
        first_s = self._behaviour.first_block_s
        return first_s if ticket.block == 0 and first_s is not None else self._behaviour.block_s

    def _pass(self, ticket: Ticket) -> None:
        match ticket:
            case OpenTicket(video=video):
                self._open[video] = media = self._behaviour.media(ticket)
                self._next[video] = ticket.first_sequence - 1, ticket.from_frame
                self._say(self.ranks[-1], InitReady(video=video, data=media.init_segment, codecs=media.codecs))
            case BlockTicket(video=video) if video not in self._skipped:
                self._make(ticket, self._open[video])
            case CloseTicket(video=video):
                del self._open[video]
                self._skipped.discard(video)
                for rank in self.ranks:
                    self._say(rank, VideoClosed(video=video, pages_used=self.num_videos))

    def _make(self, ticket: BlockTicket, media: SmallMedia) -> None:
        video, block, behaviour = ticket.video, ticket.block, self._behaviour
        self._say(self.ranks[0], passes_of(ticket, self.ranks, self._rollout.num_stages, self._takes_s(ticket)))
        if ticket.save:
            self._save(ticket)
        if block < media.opened.first_block:
            if ticket.num_frames > 0:
                self._block(ticket, media)
            self._say(self.ranks[-1], BlockRepeated(video=video, block=block))
        elif block == behaviour.fail_at:
            assert behaviour.failure is not None, "a failure is to be told"
            self._skipped.add(video)
            message = VideoBroken(video=video, code=behaviour.failure.code, message=behaviour.failure.message)
            self._say(self.ranks[-1], message)
        else:
            self._say(self.ranks[-1], self._block(ticket, media))

    def _save(self, ticket: BlockTicket) -> None:
        for stage in range(self._rollout.num_stages):
            if writes_pages(self._rollout, stage):
                latents = tensor(f"{ticket.block}.{stage}")
                saved = LatentsSaved(video=ticket.video, block=ticket.block, stage=stage, latents=latents)
                self._say(self.ranks[0], saved)

    def _block(self, ticket: BlockTicket, media: SmallMedia) -> BlockDone:
        number, start_frame = self._next[ticket.video]
        self._next[ticket.video] = number + 1, start_frame + ticket.num_frames
        payload = bytes([ticket.block % 256]) * self._behaviour.payload_bytes
        return BlockDone(
            video=ticket.video,
            block=ticket.block,
            num_frames=ticket.num_frames,
            data=media.fragment(number, ticket.num_frames, start_frame, payload),
            latents=None,
            decode_s=0.0,
            encode_s=0.0,
        )


class InstantWorkers:
    """A fleet of such chains. Serves as soon as it is started, until a test says that it is lost."""

    def __init__(
        self,
        config: EngineConfig,
        observer: Observer,
        behaviour: Behaviour,
        *,
        on_message: Callable[[int, ForFront], None],
        on_ready: Callable[[EngineFacts], None],
        on_lost: Callable[[str, frozenset[str]], None],
    ) -> None:
        self._config, self._observer, self._behaviour = config, observer, behaviour
        self._on_message, self._on_ready, self._on_lost = on_message, on_ready, on_lost
        self._facts = facts(config.devices, config.manifest, takes_pictures=behaviour.takes_pictures)
        self._state = EngineState.STARTING
        self._failure: StartError | None = None
        self._settled = asyncio.Event()
        self._has_served = False
        self._lost_at: float | None = None
        self._recovery_times_s: list[float] = []
        self._chains: list[InstantChain] = []
        self._held: list[Question] = []
        self.pictures: list[Pixels] = []
        """All that were to be encoded."""
        self.start_progress: str | None = None

    # --- what the engine asks ---

    async def start(self) -> None:
        if self._behaviour.start_failure is not None:
            self.fail(self._behaviour.start_failure)
        elif not self._behaviour.stays_starting:
            self.serve()

    async def wait_ready(self) -> None:
        while self._state in {EngineState.STARTING, EngineState.RESTARTING}:
            self._settled.clear()
            await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        self._end_group(EngineState.STOPPED)

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        if self._state == EngineState.READY:
            self._chains[chain].take(message)

    def ask(self, question: Question) -> None:
        if self._state == EngineState.READY:
            self._held.append(question)
            if not self._behaviour.holds_prompts:
                asyncio.get_running_loop().call_soon(self.answer_prompts)

    def view(self) -> FleetView:
        loads = tuple(load for chain in self._chains for load in chain.loads)
        return FleetView(
            state=self._state,
            failure=self._failure,
            start_progress=self.start_progress,
            facts=self._facts if self._has_served else None,
            pages_used=sum(load.pages_used for load in loads),
            worker_loads=loads,
            worker_pids=(None,) * len(loads),
            recovery_times_s=tuple(self._recovery_times_s),
        )

    # --- what tests ask, on the engine's loop ---

    def serve(self) -> None:
        """A group is ready: the first, or the next one behind ``lose``."""
        if self._lost_at is not None:
            self._recovery_times_s.append(time.monotonic() - self._lost_at)
            self._observer.group_replaced(self._recovery_times_s[-1])
            self._lost_at = None
        self._has_served = True
        self._chains = [
            InstantChain(self._config, tuple(part.rank for part in chain), self._behaviour, self._on_message)
            for chain in self._facts.plan.chains
        ]
        self._enter(EngineState.READY)
        self._observer.group_serves(self._facts, TIMES)
        self._on_ready(self._facts)

    def lose(self, *suspects: str) -> None:
        """Worker 0 dies, perhaps by the fault of one of these videos."""
        self._lost_at = time.monotonic()
        self._end_group(EngineState.RESTARTING)
        self._observer.group_lost(0, LossReason.DIED)
        self._on_lost("worker 0 died", frozenset(suspects))

    def fail(self, failure: StartError) -> None:
        """No group will serve any more."""
        self._failure = failure
        self._end_group(EngineState.FAILED)
        self._on_lost(failure.message, frozenset())

    def answer_prompts(self) -> None:
        """Embed and encode what was asked for so far."""
        asked, self._held = self._held, []
        for question in asked:
            if isinstance(question, EncodePrompt):
                self._on_message(0, self._answer(question))
            else:
                self.pictures.append(question.pixels)
                self._on_message(0, self._encoded(question))

    def _answer(self, question: EncodePrompt) -> PromptEncoded | PromptFailed:
        failure = self._behaviour.prompt_failure
        if failure is not None:
            return PromptFailed(request=question.request, code=failure.code, message=failure.message)
        return PromptEncoded(request=question.request, embedding=tensor(question.text))

    def _encoded(self, question: EncodePixels) -> PixelsEncoded | PixelsFailed:
        if self._behaviour.fails_pictures:
            return PixelsFailed(request=question.request, code="engine_oom", message="no memory for the picture")
        count = start_blocks(self._config.manifest.rollout, question.pixels.num_frames)
        blocks = tuple(tensor(f"given {block}") for block in range(count))
        return PixelsEncoded(request=question.request, blocks=blocks)

    def _end_group(self, state: EngineState) -> None:
        for chain in self._chains:
            chain.halt()
        self._chains, self._held = [], []
        self._enter(state)

    def _enter(self, state: EngineState) -> None:
        self._state = state
        self._settled.set()


def tensor(text: str) -> TensorBytes:
    """A tensor that can be told from others."""
    data = text.encode()
    return TensorBytes(dtype="uint8", shape=(len(data),), data=data)


class InstantEngine(Engine):
    """The real engine on such workers. Keeps what was opened."""

    workers: InstantWorkers

    def __init__(
        self,
        config: EngineConfig | None = None,
        behaviour: Behaviour | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.opened: list[VideoHandle] = []
        super().__init__(config or EngineConfig(manifest=MANIFEST), observer=observer, make_fleet=self._make_workers)

    def _make_workers(self, config: EngineConfig, observer: Observer, **callbacks: Any) -> InstantWorkers:
        self.workers = InstantWorkers(config, observer, self.behaviour, **callbacks)
        return self.workers

    async def open(
        self, request: VideoRequest, linger_s: float | None = 0.0, *, keep: Callable[[str], KeptVideo] | None = None
    ) -> VideoHandle:
        self.opened.append(await super().open(request, linger_s, keep=keep))
        return self.opened[-1]
