"""Which GPU of the driver's own library (NVML) is meant by ``cuda:N``. Loads no CUDA; the module is passed in.

CUDA_VISIBLE_DEVICES renames GPUs for CUDA and not for NVML: it lists indices, UUIDs or beginnings of them, and slices
of GPUs (MIG). Indices are NVML's where all GPUs are of one kind, or with CUDA_DEVICE_ORDER=PCI_BUS_ID; otherwise CUDA
counts faster ones first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


class HiddenGpu(LookupError):
    """CUDA_VISIBLE_DEVICES does not show such a GPU."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU, or a slice of one, that a process uses."""

    name: str
    """Index that NVML gives it; a slice has its own behind its GPU's, as ``0:1``."""
    handle: Any
    """NVML's."""
    parent: "Gpu | None" = None
    """What it is a slice of."""


def gpu_of(nvml: Any, device: str, visible: str | None) -> Gpu:
    """The GPU that is ``cuda:N`` to CUDA.

    Args:
        nvml: the module ``pynvml``, initialised.
        device: ``cuda:N``.
        visible: what CUDA_VISIBLE_DEVICES says; None where it is not set.

    Raises:
        HiddenGpu: there is no such GPU for CUDA.
        nvml.NVMLError: NVML does not know it.
    """
    number = int(device.removeprefix("cuda:"))
    if visible is None:
        return _by_index(nvml, number)
    shown = [name.strip() for name in visible.split(",") if name.strip()]
    if number >= len(shown) or shown[number] == "-1":
        raise HiddenGpu(f"there is no {device}: {VISIBLE} is {visible!r}")
    name = shown[number]
    if name.isdecimal():
        return _by_index(nvml, int(name))
    return _slice(nvml, nvml.nvmlDeviceGetHandleByUUID(name)) if name.startswith("MIG-") else _by_uuid(nvml, name)


def gpus_of(nvml: Any, devices: Iterable[str], visible: str | None) -> list[Gpu]:
    """The GPUs that devices of these names are, each once; without those that CUDA or NVML does not know."""
    found: dict[str, Gpu] = {}
    for device in devices:
        if device == "cpu":
            continue
        try:
            gpu = gpu_of(nvml, device, visible)
        except (HiddenGpu, nvml.NVMLError):
            continue
        found[gpu.name] = gpu
    return list(found.values())


def text_of(value: str | bytes) -> str:
    """Drivers' strings came as bytes from older bindings."""
    return value.decode() if isinstance(value, bytes) else value


def _by_index(nvml: Any, index: int) -> Gpu:
    """That GPU, or its first slice: CUDA shows no other of a GPU that is cut."""
    whole = Gpu(name=str(index), handle=nvml.nvmlDeviceGetHandleByIndex(index))
    return next(_slices(nvml, whole), whole)


def _by_uuid(nvml: Any, beginning: str) -> Gpu:
    for index in range(nvml.nvmlDeviceGetCount()):
        uuid = text_of(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
        if uuid.lower().startswith(beginning.lower()):
            return _by_index(nvml, index)
    raise HiddenGpu(f"{VISIBLE} names {beginning}, and there is no such GPU")


def _slice(nvml: Any, handle: Any) -> Gpu:
    parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    whole = Gpu(name=str(nvml.nvmlDeviceGetIndex(parent)), handle=parent)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    same = (gpu for gpu in _slices(nvml, whole) if nvml.nvmlDeviceGetUUID(gpu.handle) == uuid)
    return next(same, Gpu(name=f"{whole.name}:?", handle=handle, parent=whole))


def _slices(nvml: Any, whole: Gpu) -> Iterator[Gpu]:
    try:
        is_cut = nvml.nvmlDeviceGetMigMode(whole.handle)[0]
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(whole.handle) if is_cut else 0
    except nvml.NVMLError:
        return  # of a kind that cannot be cut
    for number in range(count):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole.handle, number)
        except nvml.NVMLError:
            continue  # a place for a slice without one
        yield Gpu(name=f"{whole.name}:{number}", handle=handle, parent=whole)
