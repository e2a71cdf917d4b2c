"""Random weights that keep activations at their size, written straight into mapped files by all cores."""

import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

OnFilled = Callable[[int, int], None]
"""Bytes that are filled, and bytes in all."""

SHARPNESS = 2.0
"""Scale of the norms of queries and of keys in self-attention. With 1 a query would attend to all keys about equally,
and the average of thousands of random values is nothing: a roll-out would hardly depend on the blocks before."""
_SHARPENED = re.compile(r"(self_attn|attn1)\.norm_[qk]\.weight$")


def fill(tensors: Mapping[str, Tensor], head_dim: int | None, on_filled: OnFilled) -> None:
    """Give every tensor its numbers, which depend on its name and shape alone.

    ``head_dim`` is given for a text encoder: its attention divides by no root, so queries are made that much smaller.
    """
    done, total = 0, sum(tensor.nbytes for tensor in tensors.values())
    largest_first = sorted(tensors, key=lambda name: -tensors[name].nbytes)

    def fill_one(name: str) -> int:
        fill_tensor(name, tensors[name], head_dim)
        return tensors[name].nbytes

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for num_bytes in threads.map(fill_one, largest_first):
            done += num_bytes
            on_filled(done, total)


def fill_tensor(name: str, tensor: Tensor, head_dim: int | None) -> None:
    """Norms scale by 1, but for ``SHARPNESS``; what else is multiplied with keeps the size of what it takes in."""
    if _SHARPENED.search(name):
        tensor.fill_(SHARPNESS)
        return
    if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
        tensor.fill_(1.0)
        return
    std = std_of(name, tuple(tensor.shape), head_dim)
    tensor.normal_(std=std, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def std_of(name: str, shape: tuple[int, ...], head_dim: int | None) -> float:
    """Standard deviation of a tensor's numbers."""
    if name in {"token_embedding.weight", "shared.weight"}:
        return 1.0
    is_table = name.endswith(("modulation", "scale_shift_table"))
    fan_in = shape[-1] if is_table or len(shape) == 1 else math.prod(shape[1:])
    is_query = head_dim is not None and name.endswith(".q.weight")
    return 1 / math.sqrt(fan_in * (head_dim or 1)) if is_query else 1 / math.sqrt(fan_in)
