"""What is measured and recorded before a worker serves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import EngineConfig, Order
from engine.manifest import read_manifest
from engine.model.segments import PagedCache, SegmentBatch
from engine.schedule import writes_pages
from engine.stage import costs, parts
from tests.stage import micro

TINY = read_manifest(Path("models/tiny"))
MANIFEST = replace(TINY, transformer=micro.TRANSFORMER)
CPU = torch.device("cpu")


class Watched:
    """A small network that notes the mixes it is asked for."""

    def __init__(self) -> None:
        self.model = micro.model()
        self.config, self.device = self.model.config, self.model.device
        self.encode_context = self.model.encode_context
        self.mixes: list[tuple[int, int]] = []

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        num_cache = len(batch.write_pages)
        self.mixes.append((num_cache, len(batch.latents_GFCYX) - num_cache))
        flow: Tensor = self.model(batch, cache)
        return flow


def config(order: Order = Order.STEP_FIRST, *, max_segments: int = 8, max_videos: int = 2) -> EngineConfig:
    rollout = replace(MANIFEST.rollout, order=order)
    manifest = replace(MANIFEST, rollout=rollout)
    return EngineConfig(manifest=manifest, max_segments=max_segments, max_videos=max_videos, poison_pages=True)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("max_videos", [1, 2])
@torch.inference_mode()
def test_every_mix_of_a_worker_is_run_once_for_each_size(order: Order, max_videos: int) -> None:
    setup, network = config(order, max_videos=max_videos), Watched()
    stages = (0, 1, 2, 3)
    costs.record_shapes(setup, CPU, network, parts.pages(setup, CPU, stages), stages)
    sizes = len(MANIFEST.video.sizes)
    assert all(network.mixes.count(mix) == sizes for mix in network.mixes)
    writers = sum(writes_pages(setup.manifest.rollout, stage) for stage in stages)
    assert {(1, 0), (0, 1), (1, 1), (0, 4), (min(8, writers * max_videos), 0)} <= set(network.mixes)
    assert all(1 <= sum(mix) <= 8 for mix in network.mixes)


@torch.inference_mode()
def test_a_worker_of_one_stage_has_few_mixes() -> None:
    setup, network = config(), Watched()
    costs.record_shapes(setup, CPU, network, parts.pages(setup, CPU, (2,)), (2,))
    assert set(network.mixes) == {(1, 0), (2, 0), (0, 1), (1, 1)}


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("max_segments", [1, 2, 8])
@torch.inference_mode()
def test_more_stages_cost_more(order: Order, max_segments: int) -> None:
    measured = costs.measure(config(order, max_segments=max_segments), CPU, Watched(), None)
    assert len(measured.denoise_s) == 4 and measured.decode_s == 0
    assert all(cost_s > 0 for cost_s in measured.denoise_s)
