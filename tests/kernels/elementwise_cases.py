"""The fused steps and the colour conversion as they run for the published model: width 1536, 12 heads, bfloat16.

Token and segment counts are the grid, not arguments, so these are all the variants there are: pictures 832 wide take
strips of 512, those 480 wide strips of 256.
"""

from collections.abc import Mapping
from dataclasses import replace

from tests.kernels.compiled import Case

WIDTH = {"E": 1536, "BLOCK_E": 2048}
HEADS = {"H": 12, "K": 128, "BLOCK_H": 16, "BLOCK_K": 128}
FP8_TARGETS = (89, 90)
"""Triton knows e4m3 from compute capability 8.9 on; on 8.0 a server refuses to start with it."""


def _case(
    name: str,
    kernel: str,
    pointers: dict[str, str],
    integers: tuple[str, ...],
    floats: tuple[str, ...],
    constants: Mapping[str, int | None],
) -> Case:
    """A case whose pointers and integers are all multiples of 16."""
    return Case(
        name=name,
        kernel=kernel,
        signature=pointers | dict.fromkeys(integers, "i32") | dict.fromkeys(floats, "fp32"),
        constants=constants,
        num_warps=4,
        num_stages=3,  # Triton's default; the kernels have no loop
        aligned=(*pointers, *integers),
    )


def _norm(name: str, residual: bool, gated: bool, affine: bool) -> Case:
    tensors = ("x_ptr", "y_ptr", "gate_ptr", "shift_ptr", "scale_ptr", "sum_ptr", "out_ptr")
    strides = ("gate_stride", "shift_stride", "scale_stride")
    flags = {"RESIDUAL": residual, "GATED": gated, "AFFINE": affine}
    kernel = "kernels.elementwise.triton:norm_kernel"
    return _case(name, kernel, dict.fromkeys(tensors, "*bf16"), strides, ("eps",), WIDTH | flags)


def _norm_rotate(name: str, store: bool, fp8_pages: bool = False) -> Case:
    tensors = ("x_ptr", "weight_ptr", "out_ptr", "v_ptr", "k_pages_ptr", "v_pages_ptr")
    pages = "*i32" if store else "*bf16"  # a call that stores nothing fills the place with another tensor
    pointers = dict.fromkeys(tensors, "*bf16") | {"rotations_ptr": "*fp32", "page_of_segment_ptr": pages}
    scales = ("k_scales_ptr", "v_scales_ptr")
    if fp8_pages:
        pointers |= dict.fromkeys(scales, "*fp32") | dict.fromkeys(("k_pages_ptr", "v_pages_ptr"), "*fp8e4nv")
    case = _case(
        name,
        "kernels.elementwise.triton:norm_rotate_kernel",
        pointers,
        ("page_stride", "scale_page_stride", "scale_head_stride"),
        ("eps",),
        HEADS | {"STORE": store} | ({} if fp8_pages else dict.fromkeys(scales)),
    )
    if not fp8_pages:
        return case
    aligned = tuple(name for name in case.aligned if name != "scale_head_stride")  # 4680 is no multiple of 16
    return replace(case, targets=FP8_TARGETS, aligned=aligned)


def _quantise_rows(width: int, of_gelu: bool) -> Case:
    case = _case(
        f"quantise_rows_{width}",
        "kernels.fp8.triton:quantise_rows_kernel",
        {"x_ptr": "*bf16", "out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"},
        (),
        (),
        {"E": width, "BLOCK_E": 1 << (width - 1).bit_length(), "OF_GELU": of_gelu},
    )
    return replace(case, targets=FP8_TARGETS[-1:], num_warps=8)


def _row(name: str, kernel: str, tensors: tuple[str, ...], integers: tuple[str, ...], floats: tuple[str, ...]) -> Case:
    pointers = dict.fromkeys(tensors, "*bf16")
    return _case(name, f"kernels.elementwise.triton:{kernel}", pointers, integers, floats, WIDTH)


def _yuv(strip: int) -> Case:
    pointers = {"pixels_ptr": "*fp32", "out_ptr": "*u8"}
    sizes = ("frame_stride", "channel_stride", "row_stride", "H", "W")
    return _case(f"yuv_{strip}", "kernels.yuv.triton:yuv_kernel", pointers, sizes, (), {"STRIP": strip})


ELEMENTWISE_CASES = [
    _norm("modulated_norm", residual=False, gated=False, affine=False),
    _norm("gated_residual_norm", residual=True, gated=True, affine=True),
    _norm("residual_modulated_norm", residual=True, gated=False, affine=False),
    _row("gated_residual", "gated_residual_kernel", ("x_ptr", "y_ptr", "gate_ptr", "out_ptr"), ("gate_stride",), ()),
    _row("rms_norm", "rms_norm_kernel", ("x_ptr", "weight_ptr", "out_ptr"), (), ("eps",)),
    _norm_rotate("norm_rotate", store=False),
    _norm_rotate("norm_rotate_store", store=True),
    _norm_rotate("norm_rotate_store_fp8", store=True, fp8_pages=True),
    _quantise_rows(1536, of_gelu=False),
    _quantise_rows(8960, of_gelu=True),
    _yuv(512),
    _yuv(256),
]
