"""The one rule that says whether a call runs as a Triton kernel or as its plain-PyTorch twin.

Imports nothing of Triton: a process that runs on CPU tensors never loads it.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


def uses_triton(x: Tensor) -> bool:
    """Whether the kernels take ``x``: a CUDA tensor where Triton is installed, a CPU tensor under its interpreter.

    Never a tensor that asks for gradients: the kernels have no backward pass, the twins have autograd's.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return False
    if x.is_cuda:
        return _is_installed()
    return x.device.type == "cpu" and is_interpreted()


def is_interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter; Triton reads the same variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None
