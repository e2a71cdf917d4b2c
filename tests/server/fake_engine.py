"""An engine in a few lines, for tests of delivery, limits and errors: real timing, made-up media.

Has the interface of ``engine.Engine``. Its fragments are small but well-formed MP4: 9 frames, then 12 a block.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from engine import (
    Dtypes,
    EndReason,
    EngineFacts,
    EngineLoad,
    EngineState,
    EngineUnavailable,
    FleetView,
    Fragment,
    HiarError,
    Manifest,
    Overloaded,
    StartError,
    UnknownVideo,
    VideoRequest,
    VideoState,
    VideoStatus,
    WorkerLoad,
)
from engine.config import RolloutConfig, TransformerConfig, VideoConfig
from engine.law.placement import PassCosts, place

CODECS = "avc1.64000d"
TIMESCALE = 16384


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def init_segment() -> bytes:
    media_header = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, TIMESCALE, 0, 0))
    track = box(b"trak", box(b"mdia", media_header))
    defaults = box(b"mvex", box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 0, 0, 0)))
    return box(b"ftyp", b"iso5", bytes(4)) + box(b"moov", track, defaults)


def fragment_bytes(block: int, num_frames: int, start_frame: int, fps: int, payload: bytes) -> bytes:
    ticks = TIMESCALE // fps
    header = box(b"tfhd", struct.pack(">III", 0x020008, 1, ticks))
    decode_time = box(b"tfdt", struct.pack(">IQ", 1 << 24, start_frame * ticks))
    run = box(b"trun", struct.pack(">II", 0, num_frames))
    sequence = box(b"mfhd", struct.pack(">II", 0, block + 1))
    return box(b"moof", sequence, box(b"traf", header, decode_time, run)) + box(b"mdat", payload)


@dataclass
class Behaviour:
    """What the fake does; tests change it while it runs."""

    block_s: float = 0.0
    """Time a block takes."""
    first_block_s: float = 0.0
    payload_bytes: int = 100
    slots: int = 2
    queue: int = 8
    fail_at: int | None = None
    failure: HiarError | None = None
    encode: object = None
    """Called with (video, block, num_frames, start_frame) for real media; see ``FakeVideo.media``."""


def manifest() -> Manifest:
    return Manifest(
        name="fake",
        description="made-up media",
        transformer=TransformerConfig(dim=16, ffn_dim=16, num_heads=1, num_layers=1, text_dim=8, text_len=8),
        rollout=RolloutConfig(),
        video=VideoConfig(sizes=((416, 240), (832, 480)), fps=16, max_fps=60),
        transformer_file=Path("none"),
    )


@dataclass(eq=False)
class FakeVideo:
    id: str
    request: VideoRequest
    behaviour: Behaviour
    engine: "FakeEngine"
    codecs: str | None = None
    init_segment: bytes | None = None
    end_reason: EndReason | None = None
    next_block: int = 0
    prompts: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    running: bool = False
    frames_done: int = 0

    def num_frames(self, block: int) -> int:
        full = 9 if block == 0 else 12
        if self.request.seconds is None:
            return full
        return max(0, min(full, max(1, round(self.request.seconds * self.request.fps)) - self.frames_done))

    async def fragments(self) -> AsyncIterator[Fragment]:
        try:
            await self.engine.wait_for_slot(self)
            async for fragment in self._blocks():
                yield fragment
        finally:
            self.engine.leave(self)

    async def _blocks(self) -> AsyncIterator[Fragment]:
        while self.end_reason is None:
            num_frames = self.num_frames(self.next_block)
            if num_frames == 0:
                self.end_reason = EndReason.COMPLETED
            elif self.draining:
                self.end_reason = EndReason.DRAIN
            else:
                await self._work()
                if self.end_reason is None:
                    yield self._fragment(num_frames)

    async def _work(self) -> None:
        behaviour = self.behaviour
        if behaviour.fail_at == self.next_block:
            assert behaviour.failure is not None
            raise behaviour.failure
        delay_s = behaviour.block_s if self.next_block else behaviour.first_block_s or behaviour.block_s
        try:
            await asyncio.wait_for(self.closed.wait(), delay_s or 0.001)
        except TimeoutError:
            return

    def _fragment(self, num_frames: int) -> Fragment:
        block, start_frame, fps = self.next_block, self.frames_done, self.request.fps
        data = self.media(block, num_frames, start_frame)
        self.next_block += 1
        self.frames_done += num_frames
        return Fragment(
            block=block, data=data, num_frames=num_frames, start_s=start_frame / fps, duration_s=num_frames / fps
        )

    def media(self, block: int, num_frames: int, start_frame: int) -> bytes:
        if callable(self.behaviour.encode):
            return self.behaviour.encode(self, block, num_frames, start_frame)
        self.codecs, self.init_segment = CODECS, init_segment()
        payload = bytes([block % 256]) * self.behaviour.payload_bytes
        return fragment_bytes(block, num_frames, start_frame, self.request.fps, payload)

    async def change_prompt(self, text: str) -> int:
        self.prompts.append(text)
        return self.next_block + 1

    async def close(self) -> None:
        if self.end_reason is None:
            self.end_reason = EndReason.CANCELLED
        self.closed.set()
        self.engine.leave(self)

    def status(self) -> VideoStatus:
        state = VideoState.RUNNING if self.running else VideoState.QUEUED
        return VideoStatus(
            id=self.id,
            state=VideoState.ENDED if self.end_reason else state,
            queue_position=self.engine.waiting.index(self) if self in self.engine.waiting else None,
            blocks_done=self.next_block,
            seconds_done=self.frames_done / self.request.fps,
            realtime_factor=None,
            end_reason=self.end_reason,
            num_stalls=0,
            stalled_s=0.0,
            recoveries=(),
        )


class FakeEngine:
    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.state = EngineState.READY
        self.failure: StartError | None = None
        self.manifest = manifest()
        self.videos: dict[str, FakeVideo] = {}
        self.running: list[FakeVideo] = []
        self.waiting: list[FakeVideo] = []
        self.stopped = False
        self.worker_loads: tuple[WorkerLoad, ...] = ()
        self.start_progress: str | None = None

    @property
    def facts(self) -> EngineFacts | None:
        if self.state is EngineState.STARTING:
            return None
        return EngineFacts(
            model="fake",
            device_names=("cpu",),
            plan=place(self.manifest.rollout, ("cpu",), PassCosts(denoise_s=(0.01,) * 4, decode_s=0.01)),
            frames_per_s=600.0,
            num_pages=16,
            page_bytes=1024,
            attention="none",
            dtypes=Dtypes(activations="float32", pages="fp8", linears="float32", attention="float32"),
            decoder="none",
            encoder="none",
            codecs=CODECS,
        )

    @property
    def fleet(self) -> FleetView:
        return FleetView(
            state=self.state,
            failure=self.failure,
            start_progress=self.start_progress,
            facts=self.facts,
            worker_loads=self.worker_loads,
        )

    @property
    def load(self) -> EngineLoad:
        return EngineLoad(
            running=len(self.running),
            waiting=len(self.waiting),
            slots=self.behaviour.slots,
            pages_used=len(self.running),
            num_pages=16,
            restarts=0,
            blocks_buffered=0,
        )

    async def start(self) -> None:
        self.state = EngineState.STARTING

    async def wait_ready(self) -> None:
        if self.failure:
            self.state = EngineState.FAILED
            raise self.failure
        self.state = EngineState.READY

    async def stop(self) -> None:
        self.stopped = True

    async def drain(self) -> None:
        self.state = EngineState.DRAINING
        for video in self.waiting:
            video.end_reason = EndReason.DRAIN
            video.closed.set()
        for video in self.running:
            video.draining = True
        while self.running or self.waiting:
            await asyncio.sleep(0.01)

    async def open(self, request: VideoRequest) -> FakeVideo:
        if self.state is not EngineState.READY:
            code = self.state.value if self.state is not EngineState.RESTARTING else "engine_unavailable"
            raise EngineUnavailable(f"the engine is {self.state.value}", retry_after_s=2.5, code=code)
        if len(self.running) >= self.behaviour.slots and len(self.waiting) >= self.behaviour.queue:
            raise Overloaded("the queue is full", retry_after_s=3.2)
        video = FakeVideo(f"s_{len(self.videos)}", request, self.behaviour, self)
        self.videos[video.id] = video
        self.waiting.append(video)
        self.admit()
        return video

    def video(self, id: str) -> FakeVideo:
        if id not in self.videos:
            raise UnknownVideo("no video has this id", param="video_id")
        return self.videos[id]

    def admit(self) -> None:
        while self.waiting and len(self.running) < self.behaviour.slots:
            video = self.waiting.pop(0)
            video.running = True
            self.running.append(video)

    def leave(self, video: FakeVideo) -> None:
        for line in (self.running, self.waiting):
            if video in line:
                line.remove(video)
        self.admit()

    async def wait_for_slot(self, video: FakeVideo) -> None:
        while not video.running and not video.closed.is_set():
            await asyncio.sleep(0.005)
