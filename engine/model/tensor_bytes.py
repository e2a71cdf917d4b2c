"""Tensors as plain bytes and back, for messages that a process without torch passes on. Knows no message."""

import torch
from torch import Tensor

from engine.request import TensorBytes


def to_bytes(tensor: Tensor) -> TensorBytes:
    """Copy a tensor to the host and describe it; any dtype, any device."""
    host = tensor.detach().cpu().contiguous()
    data = bytes(host.view(torch.uint8).flatten().numpy()) if host.numel() else b""
    return TensorBytes(dtype=str(host.dtype).removeprefix("torch."), shape=tuple(host.shape), data=data)


def to_tensor(message: TensorBytes) -> Tensor:
    """The tensor a message describes, on the CPU, in memory of its own."""
    dtype = getattr(torch, message.dtype)
    assert isinstance(dtype, torch.dtype), f"{message.dtype} is no tensor type"
    if not message.data:
        return torch.empty(message.shape, dtype=dtype)
    return torch.frombuffer(bytearray(message.data), dtype=dtype).view(message.shape)
