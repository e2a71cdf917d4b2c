"""The published 1.3B model without its files: what there is to plan for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.sizes import REAL
from engine.engine_config import EngineConfig
from engine.manifest import UMT5_XXL, WAN_DECODER, WAN_VIDEO, read_manifest

WAN = replace(
    read_manifest(Path("models/tiny")),
    name="hiar",
    transformer=REAL.transformer,
    rollout=REAL.rollout,
    dtype="bfloat16",
    decoder=WAN_DECODER,
    text=UMT5_XXL,
    video=WAN_VIDEO,
)


def wan(num_devices: int = 1, **changes: Any) -> EngineConfig:
    """An engine for it on GPUs."""
    devices = tuple(f"cuda:{index}" for index in range(num_devices))
    return replace(EngineConfig(manifest=WAN, devices=devices), **changes)
