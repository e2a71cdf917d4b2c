"""A device runs out of memory where pictures are made: in the decode stage alone, and in a whole lane of the chain."""

import gc
import queue
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import DecoderConfig, DecoderKind, Manifest, VideoConfig
from engine.engine_config import EngineConfig
from engine.law.placement import Placement
from engine.media.decode import DecodeStage
from engine.messages import (
    BlockDone,
    BlockTicket,
    Cancel,
    CloseTicket,
    InitReady,
    OpenTicket,
    RestoreTicket,
    VideoBroken,
    VideoClosed,
)
from engine.model.decode_state import DecodeState
from engine.model.decoder import Decoder, build_decoder
from engine.model.tensor_bytes import to_bytes
from engine.request import Output, Quality
from engine.stage.lane import Lane
from engine.stage.progress import Progress
from engine.stage.rigs import rig_of
from engine.trace import Timer
from tests.stage import micro
from tests.stage.standin_allocator import StandInAllocator

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
DECODER = DecoderConfig(kind=DecoderKind.TINY, latent_channels=micro.TRANSFORMER.in_dim, widths=(16, 16, 8, 8))
SIZES = {"small": (2, 4), "large": (4, 4)}
"""Latent height and width."""
NUM_BLOCKS = 3
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What is let go of is free at once, as on a device: no cycle may keep it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(3)
    network = build_decoder(DECODER).eval().requires_grad_(False)
    peak_of(network, "small")  # what is imported at the first use keeps some of it until the collector runs
    return network


def opening(video: str, size: str, *, seed: int = 5, output: Output = Output.FRAGMENTS) -> OpenTicket:
    height, width = SIZES[size]
    return OpenTicket(
        video=video,
        seed=seed,
        latent_height=height,
        latent_width=width,
        fps=16,
        quality=Quality.STANDARD,
        output=output,
        embedding=to_bytes(micro.embedding(1)),
    )


def block_of(video: str, block: int) -> BlockTicket:
    return BlockTicket(video=video, block=block, num_frames=12 if block else 9, last=False)


def latents_of(size: str, block: int) -> Tensor:
    generator = torch.Generator().manual_seed(block)
    return torch.randn(3, micro.TRANSFORMER.in_dim, *SIZES[size], generator=generator)


# --- the decode stage ---


class Planes:
    """An encoder whose fragments are the pictures themselves; it waits for its gate."""

    init_segment, codecs = b"init", "none"

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def encode_block(self, yuv_TPW: Tensor) -> bytes:
        assert self._gate.wait(WAIT_S)
        return bytes(yuv_TPW.numpy().tobytes())

    def close(self) -> None:
        pass


class Pictures:
    """A decode stage that takes its memory from an allocator."""

    def __init__(self, decoder: Decoder) -> None:
        self.allocator, self.gate = StandInAllocator(), threading.Event()
        self.gate.set()
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stage = DecodeStage(decoder, lambda ticket: Planes(self.gate), self._messages.put, Timer(0))
        self._sizes: dict[str, str] = {}

    def open(self, video: str, size: str, output: Output = Output.FRAGMENTS) -> None:
        self._sizes[video] = size
        self._stage.open(opening(video, size, output=output))

    def block(self, video: str, block: int) -> None:
        latents = latents_of(self._sizes[video], block)
        with torch.inference_mode(), self.allocator:
            self._stage.finish_block(block_of(video, block), latents)

    def restore(self, video: str, block: int) -> None:
        latents = latents_of(self._sizes[video], block)
        with torch.inference_mode(), self.allocator:
            self._stage.restore(RestoreTicket(video=video, block=block, latents=()), latents, CPU)

    def close(self, *videos: str) -> list[Any]:
        """Close the videos; returns what came, but for init segments."""
        for video in videos:
            closed = VideoClosed(video=video, pages_used=0)
            self._stage.close(video, lambda closed=closed: self._messages.put(closed))
        came: list[Any] = []
        while sum(isinstance(message, VideoClosed) for message in came) < len(videos):
            came.append(self._messages.get(timeout=WAIT_S))
        return [message for message in came if isinstance(message, BlockDone | VideoBroken)]


def pictures_of(messages: list[Any], video: str) -> list[bytes]:
    return [message.data for message in messages if isinstance(message, BlockDone) and message.video == video]


def peak_of(decoder: Decoder, size: str) -> int:
    """Bytes that decoding a stream of this size takes."""
    pictures = Pictures(decoder)
    pictures.open("a", size)
    for block in range(NUM_BLOCKS):
        pictures.block("a", block)
    pictures.close("a")
    return pictures.allocator.peak_bytes


def test_a_stream_too_large_for_the_device_ends_and_a_small_one_does_not(decoder: Decoder) -> None:
    room_bytes = peak_of(decoder, "large") - 1
    assert room_bytes > 1.2 * peak_of(decoder, "small")
    undisturbed, tight = Pictures(decoder), Pictures(decoder)
    tight.allocator.room_bytes = room_bytes
    for pictures in (undisturbed, tight):
        pictures.open("a", "small")
        pictures.open("b", "large")
        for block in range(NUM_BLOCKS):
            pictures.block("a", block)
            pictures.block("b", block)
        pictures.open("c", "small")
        pictures.block("c", 0)
    expected, found = (pictures.close("a", "b", "c") for pictures in (undisturbed, tight))
    assert undisturbed.allocator.live_bytes == tight.allocator.live_bytes == 0
    assert len(pictures_of(expected, "a")) == NUM_BLOCKS
    assert pictures_of(found, "a") == pictures_of(expected, "a")
    assert pictures_of(found, "c") == pictures_of(expected, "c") == pictures_of(expected, "a")[:1]
    (broken,) = (message for message in found if isinstance(message, VideoBroken))
    assert (broken.video, broken.code) == ("b", "engine_oom")


@pytest.mark.slow
@pytest.mark.parametrize("output", Output)
def test_whatever_does_not_fit_one_stream_ends_and_the_other_and_the_next_are_as_ever(
    decoder: Decoder, output: Output
) -> None:
    def play(pictures: Pictures) -> list[Any]:
        pictures.open("a", "large")
        pictures.open("b", "large", output)
        for block in range(NUM_BLOCKS):
            pictures.block("a", block)
            pictures.block("b", block)
        return pictures.close("a", "b")

    undisturbed = Pictures(decoder)
    expected = play(undisturbed)
    for refused in range(1, undisturbed.allocator.num_made, 7):
        tight = Pictures(decoder)
        tight.allocator.refused = refused
        found = play(tight)
        (broken,) = (message for message in found if isinstance(message, VideoBroken))
        assert broken.code == "engine_oom"
        other = {"a": "b", "b": "a"}[broken.video]
        assert [done.block for done in found if isinstance(done, BlockDone) and done.video == other] == [0, 1, 2]
        assert pictures_of(found, other) == pictures_of(expected, other)
        count = len(pictures_of(found, broken.video))
        assert pictures_of(found, broken.video) == pictures_of(expected, broken.video)[:count]
        assert count < NUM_BLOCKS and tight.allocator.live_bytes == 0
        tight.open("c", "large")
        tight.block("c", 0)
        assert pictures_of(tight.close("c"), "c") == pictures_of(expected, "a")[:1]


def test_a_stream_that_breaks_behind_a_slow_encoder_holds_no_memory_and_decodes_no_more(decoder: Decoder) -> None:
    """Its end is told behind its earlier blocks; what the decoder held when it failed must not wait there.

    Block 1 would be the start of a stream if it were decoded then, with fewer frames than its ticket asks for.
    """
    pictures = Pictures(decoder)
    pictures.open("b", "large")
    pictures.gate.clear()
    pictures.block("b", 0)
    made, live_bytes = pictures.allocator.num_made, pictures.allocator.live_bytes
    pictures.allocator.refused = made + 20
    pictures.block("b", 1)
    assert pictures.allocator.live_bytes < live_bytes, "its history is free too"
    made = pictures.allocator.num_made
    pictures.block("b", 2)
    pictures.restore("b", 3)
    assert pictures.allocator.num_made == made
    pictures.gate.set()
    messages = pictures.close("b")
    assert [type(message) for message in messages] == [BlockDone, VideoBroken]
    assert messages[1].message.startswith("cpu had no memory left for decoding block 1 (")


def test_no_memory_for_the_first_block_is_the_end_though_there_is_for_the_second(decoder: Decoder) -> None:
    pictures = Pictures(decoder)
    pictures.gate.clear()
    pictures.open("a", "small")
    pictures.block("a", 0)
    pictures.open("b", "large")
    pictures.allocator.refused = pictures.allocator.num_made + 3
    for block in range(NUM_BLOCKS):
        pictures.block("b", block)
    pictures.gate.set()
    messages = pictures.close("a", "b")
    assert [(type(message), message.video) for message in messages] == [(BlockDone, "a"), (VideoBroken, "b")]


def test_no_memory_to_restore_a_stream_ends_it(decoder: Decoder) -> None:
    pictures = Pictures(decoder)
    pictures.open("b", "large")
    pictures.allocator.refused = 20
    pictures.restore("b", 3)
    pictures.block("b", 4)
    (broken,) = pictures.close("b")
    assert (broken.video, broken.code) == ("b", "engine_oom")
    assert broken.message.startswith("cpu had no memory left for decoding block 3 (")


def test_the_encoders_thread_lets_go_of_no_tensor_of_the_device(decoder: Decoder) -> None:
    """Freeing one touches the device, and what is current on that thread is another one."""
    freed_by: list[str] = []

    class Watched:
        def decode(self, latents_FCYX: Tensor, state: DecodeState | None) -> tuple[Tensor, DecodeState]:
            pixels, state = decoder.decode(latents_FCYX, state)
            for tensor in (pixels, *state.caches):
                weakref.finalize(tensor, lambda: freed_by.append(threading.current_thread().name))
            return pixels, state

    pictures = Pictures(Watched())
    pictures.open("a", "small")
    pictures.gate.clear()
    for block in range(NUM_BLOCKS):
        pictures.block("a", block)
    threading.Timer(0.05, pictures.gate.set).start()
    pictures.close("a")
    assert len(freed_by) > 2 * NUM_BLOCKS
    assert set(freed_by) == {threading.current_thread().name}


# --- a whole lane ---


class WholeChain:
    """One worker that denoises and decodes, without a process around it."""

    def __init__(self, decoder: Decoder) -> None:
        self.allocator, self._told = StandInAllocator(), queue.SimpleQueue[Any]()
        placement = Placement(
            rank=0,
            device="cpu",
            chain=0,
            stages=(0, 1, 2, 3),
            decodes=True,
            embeds_text=False,
            previous=None,
            next=None,
            load_s=1.0,
        )
        config = EngineConfig(
            manifest=Manifest(
                name="micro",
                transformer=micro.TRANSFORMER,
                rollout=micro.rollout(),
                video=VideoConfig(sizes=((32, 32), (32, 16))),
                transformer_file=Path(),
                decoder=DECODER,
            ),
            max_segments=1,
            poison_pages=True,
        )
        self._lane = Lane(
            config,
            placement,
            CPU,
            rig=rig_of(config),
            model=micro.model(),
            decoder=decoder,
            prompts=None,
            progress=Progress(lambda told: None),
            send=self._told.put,
        )

    def accept(self, *messages: Any) -> None:
        """Take messages and do all that can be done."""
        with torch.inference_mode(), self.allocator:
            for message in messages:
                self._lane.accept(message)
            while self._lane.work():
                pass

    def hear(self, closed: int) -> list[Any]:
        """What was told until so many videos had closed."""
        told: list[Any] = []
        while sum(isinstance(message, VideoClosed) for message in told) < closed:
            told.append(self._told.get(timeout=WAIT_S))
        return [one for one in told if isinstance(one, InitReady | BlockDone | VideoBroken | VideoClosed)]


def play(chain: WholeChain, refused: int | None = None) -> list[Any]:
    """A small video beside a large one, which the front cancels when it breaks; then another small one.

    ``refused``: which of the allocations from the large one's opening on does not fit.
    """
    chain.accept(opening("a", "small"), block_of("a", 0))
    if refused is not None:
        chain.allocator.refused = chain.allocator.num_made + refused
    chain.accept(opening("b", "large", seed=6))
    for block in range(1, NUM_BLOCKS):
        chain.accept(block_of("b", block - 1), block_of("a", block))
    chain.accept(Cancel(video="b"), CloseTicket(video="b"), CloseTicket(video="a"))
    chain.accept(opening("c", "small"), block_of("c", 0), CloseTicket(video="c"))
    return chain.hear(closed=3)


@pytest.mark.parametrize("refused", [None, 1, 10, 400, 900, 1800])
def test_a_lane_ends_the_video_that_does_not_fit_and_serves_the_next(decoder: Decoder, refused: int | None) -> None:
    """By room alone, where decoding the large one is what takes most; or at some allocation made for either."""
    undisturbed, tight = WholeChain(decoder), WholeChain(decoder)
    expected = play(undisturbed)
    if refused is None:
        tight.allocator.room_bytes = undisturbed.allocator.peak_bytes - 1
    found = play(tight, refused)
    (broken,) = (message for message in found if isinstance(message, VideoBroken))
    assert broken.code == "engine_oom" and (refused is not None or broken.video == "b"), broken
    for video, count in (("a", NUM_BLOCKS), ("b", NUM_BLOCKS - 1), ("c", 1)):
        ours, theirs = pictures_of(found, video), pictures_of(expected, video)
        assert len(theirs) == count
        if video == broken.video:
            assert len(ours) < count and ours == theirs[: len(ours)]
        else:
            assert ours == theirs
    closed = [message for message in found if isinstance(message, VideoClosed)]
    assert {one.video for one in closed} == {"a", "b", "c"} and closed[-1].pages_used == 0
