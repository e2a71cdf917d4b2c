"""A worker with graphs, from its start to the recovery after a loss: the same numbers as without, on a stand-in."""

import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Order
from engine.engine_config import EngineConfig
from engine.law.forwards import Mix, steady_mixes
from engine.law.placement import PassCosts, place
from engine.manifest import read_manifest
from engine.messages import (
    Assign,
    BlockDone,
    BlockTicket,
    CloseTicket,
    CostsMeasured,
    EncodePrompt,
    LatentsSaved,
    MeasureCosts,
    OpenTicket,
    PromptEncoded,
    Rendezvous,
    RestoreTicket,
    WorkerReady,
)
from engine.model.graphs import GraphedWan
from engine.model.segments import PagedCache, SegmentBatch
from engine.model.tensor_bytes import to_tensor
from engine.request import Output, Quality, TensorBytes
from engine.stage.lane import Lane
from engine.stage.worker import Worker
from tests.stage import standin_graphs
from tests.stage.standin_graphs import StandInGraphs

pytestmark = pytest.mark.slow

MANIFEST = read_manifest(Path("models/tiny"))
NUM_BLOCKS = 5


@pytest.fixture(autouse=True)
def as_a_worker_runs() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> StandInGraphs:
    return standin_graphs.install(monkeypatch)


@pytest.fixture
def mixes(monkeypatch: pytest.MonkeyPatch) -> list[Mix]:
    """All forwards that workers with graphs ran."""
    found: list[Mix] = []
    forward = GraphedWan.__call__

    def watched(model: GraphedWan, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        num_cache = len(batch.write_pages)
        found.append(Mix(num_cache, len(batch.latents_GFCYX) - num_cache))
        return forward(model, batch, cache)

    monkeypatch.setattr(GraphedWan, "__call__", watched)
    return found


def config(order: Order = Order.STEP_FIRST) -> EngineConfig:
    manifest = replace(MANIFEST, rollout=replace(MANIFEST.rollout, order=order))
    return EngineConfig(manifest=manifest, max_segments=8, max_videos=3)


class Site:
    """A worker that runs all stages, in this process."""

    def __init__(self, setup: EngineConfig, costs: PassCosts | None = None) -> None:
        """Start it; ``costs`` are those of an earlier group, None to have them measured."""
        self.told: list[Any] = []
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        worker = Worker(setup, "cpu", self.told.append, inbox)
        if costs is None:
            inbox.put(MeasureCosts())
            costs = PassCosts(denoise_s=(1.0, 2.0, 3.0, 4.0), decode_s=1.0)
        plan = place(setup.manifest.rollout, ("cpu",), costs)
        inbox.put(Assign(rank=0, plan=plan, rendezvous=Rendezvous(store="file:unused", generation=0)))
        lane = worker.start()
        assert lane is not None and isinstance(self.told[-1], WorkerReady)
        self.lane: Lane = lane

    def embed(self, prompt: str) -> TensorBytes:
        self.lane.accept(EncodePrompt(request=1, text=prompt))
        return next(message.embedding for message in reversed(self.told) if isinstance(message, PromptEncoded))

    def open(self, video: str, seed: int, size_px: tuple[int, int] = (128, 128), first_block: int = 0) -> None:
        width_px, height_px = size_px
        ticket = OpenTicket(
            video=video,
            seed=seed,
            latent_height=height_px // 8,
            latent_width=width_px // 8,
            fps=16,
            quality=Quality.STANDARD,
            output=Output.LATENTS,
            embedding=self.embed("a red circle"),
            first_block=first_block,
        )
        self.lane.accept(ticket)

    def block(self, video: str, block: int) -> None:
        self.lane.accept(BlockTicket(video=video, block=block, num_frames=12, last=False, save=True))

    def restore(self, video: str, saved: dict[tuple[int, int], TensorBytes], blocks: range) -> None:
        for block in blocks:
            latents = tuple((stage, saved[stage, block]) for stage in range(4) if (stage, block) in saved)
            self.lane.accept(RestoreTicket(video=video, block=block, latents=latents))

    def run(self) -> None:
        while self.lane.work():
            pass

    def latents(self, video: str) -> dict[int, Tensor]:
        done = [message for message in self.told if isinstance(message, BlockDone) and message.video == video]
        return {message.block: to_tensor(message.latents) for message in done if message.latents is not None}

    def saved(self, video: str) -> dict[tuple[int, int], TensorBytes]:
        told = [message for message in self.told if isinstance(message, LatentsSaved) and message.video == video]
        return {(message.stage, message.block): message.latents for message in told}


def two_lives(setup: EngineConfig) -> list[dict[int, Tensor]]:
    """Two videos of one worker, one of another size beside them, and what the next worker makes of them."""
    first = Site(setup)
    assert any(isinstance(message, CostsMeasured) for message in first.told)
    first.open("a", 1)
    first.open("b", 2)
    first.open("small", 3, (96, 96))
    for block in range(NUM_BLOCKS):
        for video in ("a", "b", "small"):
            first.block(video, block)
        if block % 2:
            first.run()
    first.run()
    first.lane.accept(CloseTicket(video="small"))
    first.run()

    second = Site(setup, PassCosts(denoise_s=(1.0, 2.0, 3.0, 4.0), decode_s=1.0))
    second.open("b", 2)  # made again
    for block in range(2):
        second.block("b", block)
    second.open("a", 1, first_block=NUM_BLOCKS)  # restored beside it
    window = setup.manifest.rollout.window_blocks
    second.restore("a", first.saved("a"), range(NUM_BLOCKS - window, NUM_BLOCKS))
    for block in range(2, NUM_BLOCKS):
        second.block("b", block)
        second.block("a", NUM_BLOCKS + block - 2)
    second.run()
    videos = [(first, "a"), (first, "b"), (first, "small"), (second, "a"), (second, "b")]
    return [site.latents(video) for site, video in videos]


@pytest.mark.parametrize("order", Order)
def test_a_worker_with_graphs_makes_the_same_videos_through_start_and_recovery(
    order: Order, graphs: StandInGraphs, mixes: list[Mix], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = config(order)
    found = two_lives(setup)
    assert graphs.num_replays > 0
    steady = set(steady_mixes(setup.manifest.rollout, (0, 1, 2, 3), 8))
    assert graphs.num_captures == 2 * (len(steady) + len(MANIFEST.video.sizes)), "forwards and decoder, in both lives"
    rare = set(mixes) - steady
    assert rare, "recovery brings mixes that were not captured"
    if order == Order.STEP_FIRST:
        assert any(mix.num_cache > mix.num_denoise > 0 for mix in rare), rare

    monkeypatch.setattr(standin_graphs.build, "captures_on", lambda device: None)
    for ours, theirs in zip(found, two_lives(setup), strict=True):
        assert ours.keys() == theirs.keys() and len(ours) >= 3
        for block, latents in ours.items():
            torch.testing.assert_close(latents, theirs[block], rtol=0, atol=1e-5)


def test_nothing_is_captured_once_a_worker_serves(graphs: StandInGraphs) -> None:
    site = Site(config())
    at_start = graphs.num_captures
    site.open("a", 1)
    for block in range(3):
        site.block("a", block)
    site.run()
    assert len(site.latents("a")) == 3 and graphs.num_captures == at_start
