"""What is sure to keep the engine from starting, found before the server listens: no GPU, or a file that is not whole.

Loads no torch and no weights. What is not sure here, a worker finds out.
"""

import ctypes
from typing import Any

import pynvml  # type: ignore[import-untyped]

from engine import EngineConfig, StartError, no_gpu, require_whole_files

_CUDA = "libcuda.so.1"


def refuse_hopeless(config: EngineConfig) -> None:
    """Raise ``StartError`` for a GPU on a machine without one, or a file of the model that is absent or cut off."""
    if config.on_gpu and has_no_gpu(pynvml):
        raise StartError(no_gpu(config.devices[0]))
    require_whole_files(config.manifest)


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
