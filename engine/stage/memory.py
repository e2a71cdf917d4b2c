"""What a worker found: its device before it loads, and what it holds when it has loaded.

Tensors are counted where they can be told apart; the total is what the driver or the kernel says. Knows no plan.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.law.memory import GPU_CONTEXT_BYTES, Item
from engine.machine import free_host_bytes
from engine.messages import DeviceOpened, MemoryUse
from engine.model.decode_graph import GraphedDecoder
from engine.model.graphs import GraphedWan
from engine.stage.pages import PagePool
from kernels.fp8.formula import MIN_CAPABILITY

STATUS = Path("/proc/self/status")
KIB = 1024


def describe(device: torch.device) -> DeviceOpened:
    """The device and its free memory."""
    host_bytes = free_host_bytes()
    if device.type != "cuda":
        return DeviceOpened(kind="cpu", free_bytes=host_bytes, host_free_bytes=host_bytes, fp8=True)
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return DeviceOpened(
        kind=torch.cuda.get_device_name(device),
        free_bytes=min(total_bytes, free_bytes + GPU_CONTEXT_BYTES),
        host_free_bytes=host_bytes,
        fp8=torch.cuda.get_device_capability(device) >= MIN_CAPABILITY,
    )


def memory_use(
    device: torch.device, *, model: object, decoder: object, text_encoder: nn.Module | None, pool: PagePool
) -> MemoryUse:
    """What a worker holds before its first block. Call it when nothing runs and the allocator's cache is empty."""
    transformer = model.model if isinstance(model, GraphedWan) else model
    network = decoder.decoder if isinstance(decoder, GraphedDecoder) else decoder
    items = {
        Item.WEIGHTS: _module_bytes(transformer),
        Item.TEXT_ENCODER: _module_bytes(text_encoder),
        Item.TEXT_BUFFERS: model.text_bytes if isinstance(model, GraphedWan) else 0,
        Item.PAGES: _bytes_of(pool.cache.tensors),
        Item.DECODER: _module_bytes(network) + (decoder.buffer_bytes if isinstance(decoder, GraphedDecoder) else 0),
    }
    if device.type != "cuda":
        return MemoryUse(items=tuple(items.items()), total_bytes=_resident_bytes())
    reserved = torch.cuda.memory_reserved(device)
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    items[Item.GRAPHS] = reserved - torch.cuda.memory_allocated(device)
    items[Item.CONTEXT] = max(0, total_bytes - free_bytes - reserved)
    return MemoryUse(items=tuple(items.items()), total_bytes=total_bytes - free_bytes)


def _module_bytes(network: object) -> int:
    if not isinstance(network, nn.Module):
        return 0
    return _bytes_of([*network.parameters(), *network.buffers()])


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of distinct storages: tied weights count once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    mapped = {tensor.untyped_storage().data_ptr(): 0 for tensor in tensors}
    for tensor in tensors:
        mapped[tensor.untyped_storage().data_ptr()] += tensor.nbytes
    return sum(min(size, mapped[address]) for address, size in storages.items())


def _resident_bytes() -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    return 0
