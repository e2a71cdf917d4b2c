"""What is measured before a worker serves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import Order
from engine.engine_config import EngineConfig
from engine.manifest import read_manifest
from engine.messages import StartProgress
from engine.model.segments import PagedCache, SegmentBatch
from engine.stage import costs
from engine.stage.progress import Progress
from tests.stage import micro

pytestmark = pytest.mark.in_time

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
@pytest.mark.parametrize("max_segments", [1, 2, 8])
@torch.inference_mode()
def test_more_stages_cost_more(order: Order, max_segments: int) -> None:
    told: list[StartProgress] = []
    measured = costs.measure(config(order, max_segments=max_segments), CPU, Watched(), None, Progress(told.append))
    assert len(measured.denoise_s) == 4 and measured.decode_s == 0
    assert all(cost_s > 0 for cost_s in measured.denoise_s)
    assert told and all(0 <= progress.done < progress.total for progress in told)


@pytest.mark.parametrize(("device", "first_s", "num_runs"), [("cpu", 0.5, 4), ("cpu", 1.5, 1), ("cuda:0", 60.0, 4)])
def test_a_long_first_run_is_the_measurement_on_a_cpu_alone(
    device: str, first_s: float, num_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU it may have been compilers that took so long."""
    took_s = iter([first_s, 0.3, 0.2, 0.25])
    seen: list[float] = []

    def timed(where: torch.device, work: object) -> float:
        seen.append(next(took_s))
        return seen[-1]

    monkeypatch.setattr(costs, "_timed", timed)
    measured_s = costs._seconds(torch.device(device), lambda: None)
    assert len(seen) == num_runs and measured_s == (first_s if num_runs == 1 else 0.2)
