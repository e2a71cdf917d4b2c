"""What is sure to keep the engine from starting, found before the server listens: a GPU or a whole file is not there.

Loads no torch and no weights. What is not sure here, a worker finds out.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import inf
from typing import Any

import pynvml  # type: ignore[import-untyped]

from engine import EngineConfig, StartError, no_gpu, no_such_gpu, require_whole_files

_CUDA = "libcuda.so.1"


def refuse_hopeless(config: EngineConfig) -> None:
    """Raise ``StartError`` for a GPU that is not there, or a file of the model that is absent or cut off."""
    if config.on_gpu and (why := absent_gpu(config.devices, pynvml, os.environ)) is not None:
        raise StartError(why)
    require_whole_files(config.manifest)


def absent_gpu(devices: Sequence[str], nvml: Any, environment: Mapping[str, str], cuda: str = _CUDA) -> str | None:
    """What is said of the first of these GPUs that is certainly not there; None where all may be."""
    if has_no_gpu(nvml, cuda):
        return no_gpu(devices[0])
    num_gpus = min(_num_gpus(nvml), _num_visible(environment.get("CUDA_VISIBLE_DEVICES")))
    absent = (device for device in devices if int(device.partition(":")[2] or 0) >= num_gpus)
    return next((no_such_gpu(device, int(num_gpus)) for device in absent), None)


def _num_gpus(nvml: Any) -> float:
    """How many there are at most: not known without NVML, and not where some are cut into instances (MIG)."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return inf
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return inf if any(_is_cut(nvml, handle) for handle in handles) else len(handles)
    except nvml.NVMLError:
        return inf
    finally:
        nvml.nvmlShutdown()


def _is_cut(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError_NotSupported:
        return False


def _num_visible(told: str | None) -> float:
    """How many ``CUDA_VISIBLE_DEVICES`` lets through at most; CUDA reads it up to the first that names none."""
    if told is None:
        return inf
    return len(list(takewhile(lambda name: name.strip() not in {"", "-1"}, told.split(","))))


def has_no_gpu(nvml: Any, cuda: str = _CUDA) -> bool:
    """Whether it is certain that no GPU can be used, whatever CUDA_VISIBLE_DEVICES and MIG hide or rename.

    A container may have CUDA without NVML, so a missing library counts only where CUDA's own is missing too.

    Args:
        nvml: the module ``pynvml``.
        cuda: the driver's library for programs.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return not _can_load(cuda)
    except nvml.NVMLError_DriverNotLoaded:
        return True
    except nvml.NVMLError:
        return False
    try:
        return int(nvml.nvmlDeviceGetCount()) == 0
    except nvml.NVMLError:
        return False
    finally:
        nvml.nvmlShutdown()


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
