"""A device runs out of memory in the midst of passes: one video ends, typed, and nothing else changes."""

import gc
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.engine_config import Keep
from engine.front.log import BlockLog, MemoryStore
from engine.messages import BlockTicket, LatentsSaved, VideoBroken
from engine.model.dit import CausalWan
from engine.model.segments import PagedCache, SegmentBatch
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.request import TensorBytes
from engine.stage import runner as runner_module
from tests.stage import micro
from tests.stage.micro import Bench, chain
from tests.stage.standin_allocator import StandInAllocator

pytestmark = pytest.mark.slow

NUM_BLOCKS = 3
WIDE, NARROW = (micro.HEIGHT, micro.WIDTH), (2, micro.WIDTH)
MORE = "and more that nobody reads"


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What is let go of is free at once, as on a device: no cycle may keep it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class PlacedAllocator(StandInAllocator):
    """Remembers which function of the runner each allocation was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, list[int]] = defaultdict(list)

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        made = self.num_made
        super()._allocate(storage)
        if self.num_made > made:
            frame = sys._getframe()
            while frame.f_code.co_filename != runner_module.__file__:
                assert frame.f_back is not None
                frame = frame.f_back
            self.places[frame.f_code.co_name].append(self.num_made)


def on_device(bench: Bench, allocator: StandInAllocator) -> Bench:
    """Let the bench's runner, and nothing around it, take its memory from the allocator."""

    def inside(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with allocator:
                return method(*args)

        return call

    for name in ("submit", "tick"):
        setattr(bench.runner, name, inside(getattr(bench.runner, name)))
    return bench


def play(bench: Bench, size_of_b: tuple[int, int] = WIDE) -> None:
    """Videos a and b side by side; b takes another prompt on its way."""
    bench.open("a", seed=5, prompt=1)
    bench.open("b", seed=6, prompt=2, size=size_of_b)
    for block in range(NUM_BLOCKS):
        if block == 1:
            bench.prompt("b", 3)
        bench.block("a", block)
        bench.block("b", block)
    bench.run()


def play_next(bench: Bench) -> None:
    """Close both videos; the same as a comes again as c."""
    for video in ("a", "b"):
        bench.close(video)
    bench.run()
    assert bench.pool.num_used == 0
    bench.open("c", seed=5, prompt=1)
    for block in range(NUM_BLOCKS):
        bench.block("c", block)
    bench.run()


def the_broken(bench: Bench) -> VideoBroken:
    (told,) = (message for message in bench.told if not isinstance(message, LatentsSaved))
    assert told.code == "engine_oom" and MORE not in told.message
    return told


def assert_same(bench: Bench, expected: Bench, video: str, *, of: str | None = None, exactly: bool = True) -> None:
    for block in range(NUM_BLOCKS):
        found, wanted = bench.latents[video, block], expected.latents[of or video, block]
        torch.testing.assert_close(found, wanted, atol=0 if exactly else 1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("max_segments", [1, 8])
def test_whatever_does_not_fit_one_video_ends_and_the_other_and_the_next_are_as_ever(max_segments: int) -> None:
    """The first and the last allocation of every function of the runner that makes any."""
    allocator = PlacedAllocator()
    undisturbed = on_device(Bench(micro.rollout(), max_segments=max_segments, num_layers=1), allocator)
    play(undisturbed)
    purposes = set()
    for numbers in allocator.places.values():
        for refused in {numbers[0], numbers[-1]}:
            allocator = StandInAllocator()
            allocator.refused = refused
            bench = on_device(Bench(micro.rollout(), max_segments=max_segments, num_layers=1), allocator)
            play(bench)
            broken = the_broken(bench)
            purposes.add(broken.message.partition(" left for ")[2].partition(" (")[0])
            assert_same(bench, undisturbed, {"a": "b", "b": "a"}[broken.video], exactly=max_segments == 1)
            assert bench.tickets == undisturbed.tickets, "its tickets pass in their places"
            play_next(bench)
            assert_same(bench, undisturbed, "c", of="a", exactly=max_segments == 1)
            assert len(bench.told) == 1
    assert purposes == {"a prompt", "noise", "a pass", "a step"}


@pytest.mark.parametrize("max_segments", [1, 2, 8])
def test_a_video_too_large_for_the_device_ends_and_a_small_one_beside_it_does_not(max_segments: int) -> None:
    peaks = {}
    for size in (NARROW, WIDE):
        allocator = StandInAllocator()
        bench = on_device(Bench(micro.rollout(), max_segments=max_segments), allocator)
        bench.open("c", size=size)
        bench.block("c", 0)
        bench.run()
        peaks[size] = allocator.peak_bytes
    allocator, undisturbed = StandInAllocator(), Bench(micro.rollout(), max_segments=max_segments)
    tight = on_device(Bench(micro.rollout(), max_segments=max_segments), allocator)
    allocator.room_bytes = peaks[WIDE] - 1
    assert allocator.room_bytes > 1.2 * peaks[NARROW], "the small one has room beside what the large one keeps"
    for bench in (undisturbed, tight):
        bench.open("a", size=NARROW)
        bench.block("a", 0)
        bench.run()
        bench.open("b", size=WIDE)
        for block in range(1, NUM_BLOCKS):
            bench.block("b", block - 1)
            bench.block("a", block)
        bench.run()
    assert the_broken(tight).video == "b"
    assert_same(tight, undisturbed, "a")
    tight.close("b")
    tight.close("a")
    tight.run()
    assert tight.pool.num_used == 0
    tight.latents.clear()
    assert allocator.live_bytes == 0, "nothing of either is kept"


def test_a_pass_that_found_no_memory_holds_none_while_the_others_try_again() -> None:
    """The failed forward's activations would be missing just then."""
    live: list[int] = []

    class Watched(CausalWan):
        def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
            live.append(allocator.live_bytes)
            if len(live) == 3:
                allocator.refused = allocator.num_made + 40
            return super().__call__(batch, cache)

    network = micro.model()
    network.__class__ = Watched
    allocator = StandInAllocator()
    bench = on_device(Bench(micro.rollout(), max_segments=1, network=network), allocator)
    for video in ("a", "b"):
        bench.open(video)
        bench.block(video, 0)
    bench.run()
    assert the_broken(bench).video == "a" and ("b", 0) in bench.latents
    assert live[3] <= live[2]


def test_pages_that_a_forward_had_claimed_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache pass is laid out, its page is claimed, and there is no room for the batch."""
    allocator = PlacedAllocator()
    bench = on_device(Bench(micro.rollout(), max_segments=8), allocator)
    play(bench)
    layouts = allocator.places["_forward"]
    used = []
    for refused in (layouts[len(layouts) // 2], layouts[-1]):
        allocator = PlacedAllocator()
        allocator.refused = refused
        bench = on_device(Bench(micro.rollout(), max_segments=8), allocator)
        blame = bench.runner._blame

        def watching(*args: Any, bench: Bench = bench, blame: Callable[..., Any] = blame) -> Any:
            before = bench.pool.num_used
            suspects = blame(*args)
            used.append(before - bench.pool.num_used)
            return suspects

        monkeypatch.setattr(bench.runner, "_blame", watching)
        play(bench)
        play_next(bench)
    assert len(used) == 2 and max(used) > 0


def test_no_room_for_a_saved_block_ends_the_video_that_is_restored() -> None:
    first = Bench(micro.rollout())
    first.open("a")
    for block in range(NUM_BLOCKS):
        first.block("a", block, save=True)
    first.run()
    log = BlockLog("b", micro.rollout(), Keep(), MemoryStore())
    log.set_prompt(0, "x", to_bytes(micro.embedding(1)))
    for told in first.told:
        assert isinstance(told, LatentsSaved)
        log.save(told)
    undisturbed, tight = Bench(micro.rollout(), max_segments=1), Bench(micro.rollout(), max_segments=1)
    allocator = PlacedAllocator()
    on_device(tight, allocator)
    for bench in (undisturbed, tight):
        bench.open("a", seed=9)
        bench.open("b")
        bench.run()
        for ticket in log.restoring_tickets(NUM_BLOCKS):
            if bench is tight:
                allocator.refused = allocator.num_made + 1
            bench.runner.submit(
                replace(ticket, latents=tuple((stage, halved(saved)) for stage, saved in ticket.latents))
            )
        bench.block("b", NUM_BLOCKS)
        for block in range(NUM_BLOCKS):
            bench.block("a", block)
        bench.run()
    assert "a known block" in the_broken(tight).message and the_broken(tight).video == "b"
    assert_same(tight, undisturbed, "a")
    assert ("b", NUM_BLOCKS) in undisturbed.latents and ("b", NUM_BLOCKS) not in tight.latents
    assert tight.tickets == undisturbed.tickets
    play_next(tight)


def halved(saved: TensorBytes) -> TensorBytes:
    """In another type than the model's, so that taking it takes memory."""
    return to_bytes(to_tensor(saved).bfloat16())


def test_no_room_to_save_a_block_ends_its_video(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Tensor) -> TensorBytes:
        raise torch.OutOfMemoryError("")

    bench, undisturbed = (Bench(micro.rollout(), max_segments=1) for _ in range(2))
    play(undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "to_bytes", refuse)
        bench.open("b")
        bench.block("b", 0, save=True)
        bench.run()
    assert the_broken(bench).message == "cpu had no memory left for a step ()"
    assert bench.latents == {} and bench.tickets[-1] == BlockTicket(
        video="b", block=0, num_frames=12, last=False, save=True, opening=True
    )
    bench.open("a", seed=5, prompt=1)
    for block in range(NUM_BLOCKS):
        bench.block("a", block)
    bench.run()
    assert_same(bench, undisturbed, "a")
    play_next(bench)


@pytest.mark.parametrize("fails_too", [False, True])
def test_a_video_that_breaks_while_a_forward_is_chosen_drags_no_other_along(fails_too: bool) -> None:
    """Video a runs far down the chain; there is no memory for the noise of its next block. Video b came after it.

    The forward that was chosen by then still has a pass of a in it, and may find no memory either.
    """
    undisturbed, bench = Bench(micro.rollout(), max_segments=8), Bench(micro.rollout(), max_segments=8)
    noise, network = bench.runner._noise, bench.runner._model
    asked = []

    def scarce(seed: int, block: int, stage: int, shape: tuple[int, ...]) -> Tensor:
        if (seed, block, stage) == (5, 1, 0) and not asked:
            asked.append("noise")
            raise torch.OutOfMemoryError("noise")
        return noise(seed, block, stage, shape)

    def compute(batch: SegmentBatch, cache: PagedCache) -> Tensor:
        if fails_too and asked == ["noise"]:
            asked.append("pass")
            raise torch.OutOfMemoryError("pass")
        return network(batch, cache)

    bench.runner._noise, bench.runner._model = scarce, Computing(network, compute)
    for one in (undisturbed, bench):
        one.open("a", seed=5)
        one.block("a", 0)
        with torch.inference_mode():
            one.runner.tick()
        one.block("a", 1)
        one.open("b", seed=6)
        for block in range(NUM_BLOCKS):
            one.block("b", block)
        one.run()
    assert asked == (["noise", "pass"] if fails_too else ["noise"])
    assert the_broken(bench).video == "a" and "noise" in the_broken(bench).message
    assert_same(bench, undisturbed, "b", exactly=False)
    assert ("a", 1) not in bench.latents
    play_next(bench)


class Computing:
    """A network whose forward is replaced."""

    def __init__(self, network: Any, compute: Callable[[SegmentBatch, PagedCache], Tensor]) -> None:
        self._network, self._compute = network, compute

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        return self._compute(batch, cache)


def test_a_prompt_that_does_not_fit_in_the_second_worker_ends_its_video_there() -> None:
    """The first worker does not know and goes on; what it hands over is not computed."""
    undisturbed, tight = (chain(micro.rollout(), ((0, 1), (2, 3)), max_segments=1) for _ in range(2))
    allocator = StandInAllocator()
    on_device(tight[1], allocator)
    for benches in (undisturbed, tight):
        benches[0].open("a", seed=5)
        benches[0].run()
        if benches is tight:
            allocator.refused = allocator.num_made + 1
        benches[0].open("b", seed=6, prompt=2)
        for block in range(NUM_BLOCKS):
            benches[0].block("a", block)
            benches[0].block("b", block)
        benches[0].run()
    assert tight[0].told == [] and the_broken(tight[1]).video == "b"
    assert_same(tight[1], undisturbed[1], "a")
    assert [key for key in tight[1].latents if key[0] == "b"] == []
    tight[0].runner.cancel("b")  # the front, when it hears of it
    for video in ("a", "b"):
        tight[0].close(video)
    tight[0].run()
    assert [part.pool.num_used for part in tight] == [0, 0]
    assert tight[1].tickets[: len(undisturbed[1].tickets)] == undisturbed[1].tickets
