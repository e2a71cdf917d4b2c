"""Weight files whose tensors lie in holes: they have their full length, are read as zeros, and take no place on a disk.

They can be opened for writing, as tensors that are mapped from the file, and be filled one by one.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.true_shapes.names import Shapes

_SAFETENSORS_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ALIGNED_BYTES = 8
_LENGTH_BYTES = 8
"""Of the number at the front of a safetensors file: how long its header is."""


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Tensors of one type that a file holds under a key of its own; the empty key is the file itself."""

    shapes: Shapes
    dtype: torch.dtype
    key: str = ""

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        return sum(prod(shape) for shape in self.shapes.values()) * self.dtype.itemsize


def write_torch_file(path: Path, groups: list[Tensors], others: Mapping[str, Any]) -> None:
    """Write what ``torch.save`` writes of ``groups`` and, in fake or plain values, ``others``; tensors are zeros.

    Raises ``OSError``.
    """
    content: dict[str, Any] = {}
    with FakeTensorMode():
        for group in groups:
            made = {name: torch.empty(shape, dtype=group.dtype) for name, shape in group.shapes.items()}
            content |= {group.key: made} if group.key else made
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save({**content, **others}, path)


def open_torch_file(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors under ``key``, mapped: what is written into them is written into the file."""
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors: dict[str, Tensor] = content[key] if key else content
    return tensors


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write a header and a hole behind it. Raises ``OSError``."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, shape in tensors.shapes.items():
        end = begin + prod(shape) * tensors.dtype.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_TYPES[tensors.dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        file.truncate(_LENGTH_BYTES + len(text) + begin)


def open_safetensors(path: Path, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors of a file written from ``tensors``, mapped: what is written into them is written into the file."""
    with path.open("rb") as file:
        data_offset = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
    num_elements = path.stat().st_size // tensors.dtype.itemsize
    mapped = torch.from_file(str(path), shared=True, size=num_elements, dtype=tensors.dtype)
    opened, begin = {}, data_offset // tensors.dtype.itemsize
    for name, shape in tensors.shapes.items():
        opened[name] = mapped[begin : begin + prod(shape)].view(shape)
        begin += prod(shape)
    return opened


def in_shards(tensors: Tensors, count: int) -> list[Tensors]:
    """The same tensors in ``count`` groups of about equal size, in order."""
    most, shards, begun = tensors.num_bytes / count, [Shapes()], 0
    for name, shape in tensors.shapes.items():
        if begun >= most * len(shards):
            shards.append(Shapes())
        shards[-1][name] = shape
        begun += prod(shape) * tensors.dtype.itemsize
    return [Tensors(shapes=shapes, dtype=tensors.dtype) for shapes in shards]
