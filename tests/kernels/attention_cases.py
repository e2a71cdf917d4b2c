"""The attention kernels as the 1.3B model asks for them: 4680 tokens, 12 heads of 128, and once each padded width.

Paged attention in bfloat16 is cut as the choice of tilings says for each target (``chosen``); the other cases are told.

Pages of e4m3 are not compiled for compute capability 8.0: Triton cannot convert them there, and a server that is asked
for them refuses to start (``engine.stage.precision``).
"""

from collections.abc import Mapping

import torch

from tests.kernels.compiled import Case

TOKENS, HEADS = 4680, 12
STRIDES = ("q_segment_stride", "q_row_stride", "k_segment_stride", "k_row_stride", "v_segment_stride", "v_row_stride")
TABLE = ("pages_ptr", "num_tokens_ptr", "num_pages_ptr")
PAGE_STRIDES = ("page_stride", "page_row_stride")
SCALE_STRIDES = ("scale_page_stride", "scale_head_stride")
FLOAT32_SPILL_BYTES = 1500
"""Float32 products run without tensor cores and keep whole rows of operands; nothing that must be fast uses them."""


def _constants(width: int, queries: int, keys: int) -> dict[str, int | bool | float | None]:
    sizes = {"L": TOKENS, "H": HEADS, "K": width, "BLOCK_M": queries, "BLOCK_N": keys}
    return {**sizes, "BLOCK_K": 1 << (width - 1).bit_length(), "AS_FLOAT32": False}


def paged(
    kind: str,
    targets: tuple[int, ...],
    tiling: tuple[int, int, int, int],
    *,
    width: int = 128,
    descriptors: bool = False,
    fp8_pages: bool = False,
    max_spill_bytes: int = 0,
) -> Case:
    queries, keys, num_warps, num_stages = tiling

    def rows(held: str) -> str:
        return f"tensordesc<{held}[1, {keys}, {width}]>" if descriptors else f"*{held}"

    sources, pools = ("k_own", "v_own", "k_pages", "v_pages"), ("k_pages_ptr", "v_pages_ptr")
    scales = ("k_scales_ptr", "v_scales_ptr")
    signature: Mapping[str, str] = {
        **dict.fromkeys(("q_ptr", "out_ptr"), f"*{kind}"),
        **dict.fromkeys(sources[:2], rows(kind)),
        **dict.fromkeys(sources[2:], rows("fp8e4nv" if fp8_pages else kind)),
        **dict.fromkeys(pools, "*fp8e4nv" if fp8_pages else f"*{kind}"),
        **(dict.fromkeys(scales, "*fp32") if fp8_pages else {}),
        **dict.fromkeys(TABLE, "*i32"),
        **dict.fromkeys(("table_stride", *STRIDES, *PAGE_STRIDES, *SCALE_STRIDES), "i32"),
    }
    whole = (*scales, *SCALE_STRIDES[:1]) if fp8_pages else ()
    return Case(
        name=f"paged-{kind}-{width}{'-fp8' if fp8_pages else ''}{'-descriptors' if descriptors else ''}",
        kernel="kernels.attention.triton:paged_attention_kernel",
        signature=signature,
        constants={
            **_constants(width, queries, keys),
            **({} if fp8_pages else dict.fromkeys(scales)),
            "DESCRIPTORS": descriptors,
        },
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=("q_ptr", "out_ptr", *pools, *STRIDES, *PAGE_STRIDES, *whole, *(() if descriptors else sources)),
        targets=targets,
        max_spill_bytes=max_spill_bytes,
    )


def int8(
    kind: str,
    targets: tuple[int, ...],
    tiling: tuple[int, int, int, int],
    *,
    descriptors: bool = False,
    fp8_pages: bool = False,
    max_spill_bytes: int = 0,
) -> Case:
    queries, keys, num_warps, num_stages = tiling

    def rows(held: str) -> str:
        return f"tensordesc<{held}[1, {keys}, 128]>" if descriptors else f"*{held}"

    sources, v_strides = ("k_ints", "v_own", "v_pages"), ("v_segment_stride", "v_row_stride")
    whole = ("q_ptr", "out_ptr", "k_ints_ptr", "v_pages_ptr", "k_scales_ptr", *STRIDES[:2], *v_strides, *PAGE_STRIDES)
    if fp8_pages:
        whole = (*whole, "v_scales_ptr", "scale_page_stride")
    return Case(
        name=f"int8-{kind}{'-fp8' if fp8_pages else ''}{'-descriptors' if descriptors else ''}",
        kernel="kernels.attention.triton_int8:int8_attention_kernel",
        signature={
            **dict.fromkeys(("q_ptr", "out_ptr"), f"*{kind}"),
            "k_ints": rows("i8"),
            "k_scales_ptr": "*fp32",
            "v_own": rows(kind),
            "v_pages": rows("fp8e4nv" if fp8_pages else kind),
            "k_ints_ptr": "*i8",
            "v_pages_ptr": "*fp8e4nv" if fp8_pages else f"*{kind}",
            **({"v_scales_ptr": "*fp32"} if fp8_pages else {}),
            **dict.fromkeys(TABLE, "*i32"),
            **dict.fromkeys(("table_stride", "num_slots", *STRIDES[:2], *v_strides, *PAGE_STRIDES), "i32"),
            **dict.fromkeys(SCALE_STRIDES, "i32"),
        },
        constants={
            **_constants(128, queries, keys),
            **({} if fp8_pages else {"v_scales_ptr": None}),
            "DESCRIPTORS": descriptors,
        },
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=(*whole, *(() if descriptors else sources)),
        targets=targets,
        max_spill_bytes=max_spill_bytes,
    )


def smooth_keys(kind: str, targets: tuple[int, ...], *, fp8_pages: bool = False) -> Case:
    return Case(
        name=f"smooth-keys-{kind}{'-fp8' if fp8_pages else ''}",
        kernel="kernels.attention.triton_int8:smooth_keys_kernel",
        signature={
            "k_own_ptr": f"*{kind}",
            "k_pages_ptr": "*fp8e4nv" if fp8_pages else f"*{kind}",
            **({"k_scales_ptr": "*fp32"} if fp8_pages else {}),
            **dict.fromkeys(("mean_ptr", "int_scales_ptr"), "*fp32"),
            "ints_ptr": "*i8",
            **dict.fromkeys(TABLE, "*i32"),
            **dict.fromkeys(("table_stride", "segment_stride", "row_stride", *PAGE_STRIDES, *SCALE_STRIDES), "i32"),
        },
        constants={
            **dict(zip(("H", "K", "BLOCK_H", "BLOCK_K"), (HEADS, 128, 16, 128), strict=True)),
            **({} if fp8_pages else {"k_scales_ptr": None}),
        },
        num_warps=4,
        num_stages=3,
        aligned=("k_own_ptr", "k_pages_ptr", "mean_ptr", "ints_ptr", "segment_stride", "row_stride", *PAGE_STRIDES),
        targets=targets,
    )


def text(kind: str, targets: tuple[int, ...], tiling: tuple[int, int, int, int], *, max_spill_bytes: int = 0) -> Case:
    queries, keys, num_warps, num_stages = tiling
    tensors = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")
    return Case(
        name=f"text-{kind}",
        kernel="kernels.attention.triton_text:text_attention_kernel",
        signature={
            **dict.fromkeys(tensors, f"*{kind}"),
            "bias_ptr": "*fp32",
            "num_rows_ptr": "*i32",
            **dict.fromkeys(("bias_stride", *STRIDES), "i32"),
        },
        constants=_constants(128, queries, keys),
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=(*tensors, *STRIDES),
        targets=targets,
        max_spill_bytes=max_spill_bytes,
    )


def specialised_pages(kind: str, width: int = 128) -> Case:
    tensors, strides = ("q_ptr", "k_pages_ptr", "v_pages_ptr"), ("q_row_stride", *PAGE_STRIDES)
    results = ("mean_ptr", "log_total_ptr")
    queries, keys, num_warps, num_stages = SPECIALISED
    return Case(
        name=f"specialised-pages-{kind}-{width}",
        kernel="kernels.attention.triton_specialised:pages_kernel",
        signature={
            **dict.fromkeys(tensors, f"*{kind}"),
            **dict.fromkeys(results, "*fp32"),
            **dict.fromkeys(TABLE, "*i32"),
            **dict.fromkeys(("table_stride", "num_rows", "pool_pages", *strides), "i32"),
        },
        constants=_constants(width, queries, keys),
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=(*tensors, *results, *strides),
        targets=(90,),
        specialised=True,
    )


def specialised_own_tokens(kind: str) -> Case:
    queries, keys, num_warps, num_stages = HOPPER
    sources, results, strides = ("k_own", "v_own"), ("mean_ptr", "log_total_ptr"), STRIDES[:2]
    return Case(
        name=f"specialised-own-{kind}",
        kernel="kernels.attention.triton_specialised:own_tokens_kernel",
        signature={
            **dict.fromkeys(("q_ptr", "out_ptr"), f"*{kind}"),
            **dict.fromkeys(sources, f"tensordesc<{kind}[1, {keys}, 128]>"),
            **dict.fromkeys(results, "*fp32"),
            **dict.fromkeys(strides, "i32"),
        },
        constants=_constants(128, queries, keys),
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=("q_ptr", "out_ptr", *results, *strides),
        targets=(90,),
    )


HOPPER, HALF, FLOAT32 = (128, 128, 8, 2), (128, 64, 8, 3), (32, 32, 8, 2)
"""The tilings of ``kernels.attention.triton_softmax``, which is not imported without Triton; a test compares them."""
SPECIALISED = (128, 128, 4, 2)
"""That of ``kernels.attention.triton_specialised``."""

WAYS = {"": (False, False), "-fp8": (True, False), "-int8": (False, True), "-fp8-int8": (True, True)}
"""Whether pages are held, and queries and keys multiplied, in 8 bits."""


def chosen(target: int, fp8_pages: bool, int8_products: bool) -> list[Case]:
    """Paged attention in bfloat16 as the choice of tilings has it for a target. Where Triton may be imported."""
    from kernels.attention.triton_softmax import tilings_on  # noqa: PLC0415 - see the module's text

    make = int8 if int8_products else paged
    return [
        make(
            "bf16",
            (target,),
            (tiling.queries, tiling.keys, tiling.num_warps, tiling.num_stages),
            descriptors=tiling.descriptors,
            fp8_pages=fp8_pages,
        )
        for tiling in tilings_on((target // 10, target % 10), torch.bfloat16, fp8_pages=fp8_pages, int8=int8_products)
    ]


ATTENTION_CASES = [
    paged("fp16", (90,), HOPPER, descriptors=True),
    paged("bf16", (90,), HALF, width=96),
    smooth_keys("bf16", (80, 90, 120)),
    smooth_keys("bf16", (90, 120), fp8_pages=True),
    paged("fp32", (90,), FLOAT32, max_spill_bytes=FLOAT32_SPILL_BYTES),
    specialised_pages("bf16"),
    specialised_pages("fp16"),
    specialised_own_tokens("bf16"),
    specialised_own_tokens("fp16"),
    text("bf16", (80, 89, 90, 100, 120), HALF),
    text("fp32", (90,), FLOAT32, max_spill_bytes=FLOAT32_SPILL_BYTES),
]
