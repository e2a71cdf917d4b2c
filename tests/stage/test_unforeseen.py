"""Work on one video fails in a way nobody foresaw: that video ends, typed, and neither the worker nor others notice."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import EngineConfig, Output, Pace, PromptAt, VideoFailed, VideoHandle, VideoRequest, read_manifest
from engine.config import Order
from engine.engine_config import Fault, FaultKind, Rehearsal
from engine.messages import BlockTicket, VideoBroken
from engine.model.segments import PagedCache, SegmentBatch, TextContext
from engine.stage import runner as runner_module
from engine.stage.rehearsal import Faults
from tests.front import making
from tests.stage import micro
from tests.stage.micro import Bench, chain

NUM_BLOCKS = 4
BAD_PROMPT = 2
"""The prompt of the video that is poisoned: b."""


class Poisoned:
    """The network, but for passes of the poisoned video from some block on."""

    def __init__(self, from_block: int) -> None:
        self._network, self._from_block = micro.model(), from_block
        self._bad: TextContext | None = None
        self.shared: list[bool] = []
        """Of each forward that failed: whether another video was in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        context = self._network.encode_context(embedding_TX)
        if torch.equal(embedding_TX, micro.embedding(BAD_PROMPT)):
            self._bad = context
        return context

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        blocks = (batch.starts_G // batch.latents_GFCYX.shape[1]).tolist()
        for context, block in zip(batch.contexts, blocks, strict=True):
            if context is self._bad and block >= self._from_block:
                self.shared.append(any(other is not self._bad for other in batch.contexts))
                raise KeyError("nobody foresaw this")
        return self._network(batch, cache)


def play(bench: Bench) -> Bench:
    """Videos a and b side by side."""
    bench.open("a", seed=5, prompt=1)
    bench.open("b", seed=6, prompt=BAD_PROMPT)
    for block in range(NUM_BLOCKS):
        bench.block("a", block)
        bench.block("b", block)
    bench.run()
    return bench


def assert_b_ended_alone(bench: Bench, undisturbed: Bench, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """Video a and the next one are as ever, all tickets passed in order, and the log says once what happened."""
    assert bench.told == [VideoBroken(video="b", code=VideoFailed.code, message=message)]
    assert bench.tickets == undisturbed.tickets, "its tickets pass in their places"
    for block in range(NUM_BLOCKS):
        torch.testing.assert_close(bench.latents["a", block], undisturbed.latents["a", block], atol=1e-6, rtol=0)
    assert ("b", NUM_BLOCKS - 1) not in bench.latents
    for video in ("a", "b"):
        bench.close(video)
    bench.run()
    assert bench.pool.num_used == 0
    bench.open("c", seed=5, prompt=1)
    bench.block("c", 0)
    bench.run()
    torch.testing.assert_close(bench.latents["c", 0], undisturbed.latents["a", 0], atol=1e-6, rtol=0)
    assert caplog.text.count("video b ends") == caplog.text.count("Traceback") == 1
    assert "nobody foresaw this" in caplog.text


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("max_segments", [1, 2, 8])
@pytest.mark.parametrize("from_block", [0, 2])
def test_a_pass_that_fails_ends_its_video_whoever_shares_the_forward(
    order: Order, max_segments: int, from_block: int, caplog: pytest.LogCaptureFixture
) -> None:
    config, network = micro.rollout(order), Poisoned(from_block)
    bench = play(Bench(config, max_segments=max_segments, network=network))  # type: ignore[arg-type]
    assert network.shared == ([True, False] if max_segments == 8 else [*network.shared[:-1], False])
    undisturbed = play(Bench(config, max_segments=max_segments))
    assert_b_ended_alone(bench, undisturbed, "a pass failed on cpu (KeyError)", caplog)


def fail_for_b(function: Callable[..., Any], is_b: Callable[..., bool]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if is_b(*args):
            raise KeyError("nobody foresaw this")
        return function(*args)

    return call


@pytest.mark.parametrize(("stage", "purpose"), [(0, "noise"), (2, "a step")])
def test_noise_or_a_step_that_fails_ends_its_video(stage: int, purpose: str, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(micro.rollout())
    bench.runner._noise = fail_for_b(
        bench.runner._noise, lambda seed, block, s, shape: (seed, block, s) == (6, 1, stage)
    )
    play(bench)
    assert_b_ended_alone(bench, play(Bench(micro.rollout())), f"{purpose} failed on cpu (KeyError)", caplog)


def test_a_prompt_that_fails_ends_its_video(caplog: pytest.LogCaptureFixture) -> None:
    bench, bad = Bench(micro.rollout()), micro.embedding(BAD_PROMPT)
    network = bench.runner._model
    network.encode_context = fail_for_b(  # type: ignore[method-assign]
        network.encode_context, lambda embedding: torch.equal(embedding, bad)
    )
    play(bench)
    assert_b_ended_alone(bench, play(Bench(micro.rollout())), "a prompt failed on cpu (KeyError)", caplog)


def test_a_saved_block_that_is_no_block_ends_its_video(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(micro.rollout())
    bench.open("a")
    bench.block("a", 0, save=True)
    monkeypatch.setattr(runner_module, "to_bytes", fail_for_b(runner_module.to_bytes, lambda latents: True))
    bench.run()
    assert [told.code for told in bench.told if isinstance(told, VideoBroken)] == [VideoFailed.code]
    assert bench.latents == {} and isinstance(bench.tickets[-1], BlockTicket)


def test_a_failure_that_no_video_repeats_alone_ends_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only one forward that both share fails, so neither is known to be at fault."""
    undisturbed, failed = play(Bench(micro.rollout(), max_segments=8)), list[tuple[int, int, int]]()

    def fail_once(_faults: Faults, stage: int, block: int, seed: int) -> None:
        if (stage, block, seed) == (1, 1, 6) and not failed:
            failed.append((stage, block, seed))
            raise ZeroDivisionError("rehearsed")

    monkeypatch.setattr(Faults, "before_pass", fail_once)
    bench = play(Bench(micro.rollout(), max_segments=8))
    assert failed and bench.told == [] and bench.tickets == undisturbed.tickets
    for key, latents in undisturbed.latents.items():
        torch.testing.assert_close(bench.latents[key], latents, atol=1e-6, rtol=0)
    assert "videos a, b are tried apart" in caplog.text and "rehearsed" in caplog.text


def test_the_worker_behind_gets_something_for_every_block() -> None:
    undisturbed, struck = (chain(micro.rollout(), ((0, 1), (2, 3))) for _ in range(2))
    noise = struck[0].runner._noise
    struck[0].runner._noise = fail_for_b(noise, lambda seed, block, stage, shape: (seed, block, stage) == (6, 1, 1))
    for benches in (undisturbed, struck):
        play(benches[0])
    assert [told.video for told in struck[0].told if isinstance(told, VideoBroken)] == ["b"]
    assert struck[1].tickets == undisturbed[1].tickets
    for block in range(NUM_BLOCKS):
        assert torch.equal(struck[1].latents["a", block], undisturbed[1].latents["a", block])
    assert torch.isnan(struck[1].latents["b", 1]).all()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("device-side assert triggered"),
    ],
)
def test_a_device_that_can_compute_no_more_ends_the_worker(error: RuntimeError) -> None:
    bench = Bench(micro.rollout())

    def fail(*args: Any) -> Any:
        raise error

    bench.runner._noise = fail
    bench.open("a")
    bench.block("a", 0)
    with pytest.raises(RuntimeError) as raised:
        bench.run()
    assert raised.value is error and bench.told == []


def test_an_error_of_ours_about_tickets_and_pages_ends_the_worker() -> None:
    """The same blocks twice: no video's fault, and nothing that follows could be trusted."""
    bench = Bench(micro.rollout())
    bench.open("a")
    for block in (0, 1, 0, 1):
        bench.block("a", block)
    with pytest.raises(AssertionError):
        bench.run()
    assert bench.told == []


# --- real processes ---

CONFIG = EngineConfig(
    manifest=read_manifest(Path("models/tiny")),
    devices=("cpu",) * 2,
    poison_pages=True,
    rehearsal=Rehearsal(
        pass_s=0.01,
        faults=tuple(Fault(kind=FaultKind.RAISE, stage=stage, block=2, seed=stage) for stage in range(4)),
    ),
)
REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"),),
    width_px=128,
    height_px=128,
    fps=16,
    seconds=6,
    pace=Pace.FAST,
    output=Output.LATENTS,
)


async def read(video: VideoHandle) -> int:
    return len([fragment async for fragment in video.read()])


async def read_to_its_failure(video: VideoHandle) -> int:
    count = 0
    with pytest.raises(VideoFailed) as failure:
        async for _ in video.read():
            count += 1
    assert failure.value.code == "engine_error"
    assert failure.value.message == "a pass failed on cpu (ZeroDivisionError)"
    return count


@pytest.mark.slow
@pytest.mark.in_time
def test_videos_that_fail_in_real_workers_end_typed_and_no_worker_is_replaced() -> None:
    async def body() -> None:
        async with making.running(CONFIG) as engine:
            pids = engine.fleet.worker_pids
            for stage in range(4):
                struck = await engine.open(replace(REQUEST, seed=stage))
                beside = await engine.open(replace(REQUEST, seed=100))
                before, whole = await asyncio.gather(read_to_its_failure(struck), read(beside))
                assert before <= 2 and whole == 9
            assert await read(await engine.open(replace(REQUEST, seed=100))) == 9
            assert engine.load.restarts == 0 and engine.fleet.worker_pids == pids
            assert engine.load.pages_used == 0

    asyncio.run(body())
