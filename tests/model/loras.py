"""A small transformer, LoRA files for it under the names that people use, and what they should make of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.config import TransformerConfig
from engine.model.dit import CausalWan

CONFIG = TransformerConfig(dim=24, ffn_dim=40, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=8)
RANK = 3

Halves = dict[str, tuple[Tensor, Tensor]]
"""Of each changed module: A [rank, inputs] and B [outputs, rank]."""


def base_tensors() -> dict[str, Tensor]:
    """Random weights of the small transformer."""
    torch.manual_seed(1)
    return {name: torch.randn_like(tensor) for name, tensor in CausalWan(CONFIG).state_dict().items()}


def linear_halves(tensors: dict[str, Tensor], seed: int = 2, rank: int = RANK) -> Halves:
    """For all ten linear layers of every block, as LongLive's LoRA has them."""
    random = torch.Generator().manual_seed(seed)
    return {
        name.removesuffix(".weight"): (
            torch.randn(rank, weight.shape[1], generator=random),
            torch.randn(weight.shape[0], rank, generator=random),
        )
        for name, weight in tensors.items()
        if name.startswith("blocks.") and name.endswith(".weight") and weight.dim() == 2
    }


def expected(tensors: dict[str, Tensor], halves: Halves, factor: float = 1.0) -> dict[str, Tensor]:
    """W + factor B A in float64."""
    changed = {
        f"{module}.weight": (tensors[f"{module}.weight"].double() + factor * up.double() @ down.double()).float()
        for module, (down, up) in halves.items()
    }
    return tensors | changed


def named(halves: Halves, down_name: str, up_name: str, rename: Callable[[str], str] = str) -> dict[str, Tensor]:
    """The halves under names: ``{}`` in the two patterns is the module."""
    tensors = {}
    for module, (down, up) in halves.items():
        tensors[down_name.format(rename(module))] = down
        tensors[up_name.format(rename(module))] = up
    return tensors


def peft(halves: Halves, prefix: str = "base_model.model.", adapter: str = "") -> dict[str, Tensor]:
    """The halves under PEFT's names."""
    return named(halves, f"{prefix}{{}}.lora_A{adapter}.weight", f"{prefix}{{}}.lora_B{adapter}.weight")


def save(tensors: Any, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write the tensors as the name's ending asks for, and return the path."""
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata)
    else:
        torch.save(tensors, path)
    return path


def assert_near(model: CausalWan, wanted: dict[str, Tensor]) -> None:
    """Fails unless the model has these weights but for rounding in float32."""
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, rtol=1e-5, atol=1e-5), name
