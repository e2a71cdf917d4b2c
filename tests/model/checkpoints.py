"""Checkpoint files that several tests write, and what is in them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def small_student() -> dict[str, Tensor]:
    """A few tensors under names that a student's could have."""
    torch.manual_seed(1)
    return {f"blocks.{index}.weight": torch.randn(40, 30) for index in range(5)} | {"head.modulation": torch.randn(2)}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Fails unless the same names have the same numbers."""
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def save_sharded(tensors: dict[str, Tensor], folder: Path, name: str = "w") -> Path:
    """Write two shards and their index into a folder, all called ``name``, and return the index."""
    folder.mkdir(exist_ok=True)
    names = sorted(tensors)
    shards = {f"{name}-00001-of-00002.safetensors": names[::2], f"{name}-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({member: tensors[member] for member in members}, folder / shard)
    weight_map = {member: shard for shard, members in shards.items() for member in members}
    index = folder / f"{name}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index
