"""Whether a device can do what fewer bits than the model's own type ask of it. Knows no tensor and no file."""

from importlib.util import find_spec

import torch

from engine.config import TransformerConfig
from engine.engine_config import Precision
from kernels.fp8.formula import MIN_CAPABILITY, MULTIPLE


def objection(
    precision: Precision,
    sizes: TransformerConfig,
    dtype: torch.dtype,
    capability: tuple[int, int] | None,
    *,
    has_triton: bool,
) -> str | None:
    """Why a model of these sizes cannot run so, as a sentence for the operator; None if it can.

    Args:
        precision: what is asked for.
        sizes: of the transformer.
        dtype: of weights and activations.
        capability: compute capability of the GPU; None on a CPU, where the formulas run and all is possible.
        has_triton: whether Triton is installed.
    """
    kv, linear, attention = "--kv-dtype fp8", "--linear-dtype fp8", "--attention-dtype int8"
    on_gpu, there = capability is not None, ".".join(map(str, capability or ()))
    too_old = (
        f"needs a GPU of compute capability {'.'.join(map(str, MIN_CAPABILITY))} or later, and this one has {there}"
    )
    is_old = capability is not None and capability < MIN_CAPABILITY
    without_triton = on_gpu and not has_triton
    odd_widths = bool(sizes.dim % MULTIPLE or sizes.ffn_dim % MULTIPLE)
    widths = f"widths that are multiples of {MULTIPLE} on a GPU, and these are {sizes.dim} and {sizes.ffn_dim}"
    objections = (
        (
            precision.fp8_linears and sizes.num_layers < 3,
            f"{linear} keeps the first and the last layer as they are, and the model has {sizes.num_layers}",
        ),
        (precision.fp8_pages and is_old, f"{kv} {too_old}"),
        (precision.fp8_linears and is_old, f"{linear} {too_old}"),
        (precision.fp8_pages and without_triton, f"{kv} needs Triton on a GPU, which is not installed"),
        (precision.int8_attention and without_triton, f"{attention} needs Triton on a GPU, which is not installed"),
        (precision.fp8_linears and on_gpu and dtype != torch.bfloat16, f"{linear} needs a model of bfloat16 on a GPU"),
        (precision.fp8_linears and on_gpu and odd_widths, f"{linear} needs {widths}"),
    )
    return next((sentence for applies, sentence in objections if applies), None)


def objection_on(
    device: torch.device, precision: Precision, sizes: TransformerConfig, dtype: torch.dtype
) -> str | None:
    """``objection`` for a device that is there."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return objection(precision, sizes, dtype, capability, has_triton=find_spec("triton") is not None)
