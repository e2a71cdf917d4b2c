"""The attention kernels as the 1.3B model asks for them: 4680 tokens, 12 heads of 128, and once each padded width."""

from collections.abc import Mapping

from tests.kernels.compiled import Case

TOKENS, HEADS = 4680, 12
STRIDES = ("q_segment_stride", "q_row_stride", "k_segment_stride", "k_row_stride", "v_segment_stride", "v_row_stride")
PAGE_STRIDES = ("page_stride", "page_row_stride")
FLOAT32_SPILL_BYTES = 1000
"""Float32 products run without tensor cores and keep whole rows of operands; nothing that must be fast uses them."""


def _constants(width: int, queries: int, keys: int) -> dict[str, int | bool | float]:
    sizes = {"L": TOKENS, "H": HEADS, "K": width, "BLOCK_M": queries, "BLOCK_N": keys}
    return {**sizes, "BLOCK_K": 1 << (width - 1).bit_length(), "AS_FLOAT32": False}


def paged(
    kind: str,
    targets: tuple[int, ...],
    tiling: tuple[int, int, int, int],
    *,
    width: int = 128,
    descriptors: bool = False,
    max_spill_bytes: int = 0,
) -> Case:
    queries, keys, num_warps, num_stages = tiling
    pages = f"tensordesc<{kind}[1, {keys}, {width}]>" if descriptors else f"*{kind}"
    sources = ("k_own", "v_own", "k_pages", "v_pages")
    signature: Mapping[str, str] = {
        **dict.fromkeys(("q_ptr", "out_ptr"), f"*{kind}"),
        **dict.fromkeys(sources, pages),
        **dict.fromkeys(("pages_ptr", "num_pages_ptr"), "*i32"),
        **dict.fromkeys(("table_stride", *STRIDES, *PAGE_STRIDES), "i32"),
    }
    return Case(
        name=f"paged-{kind}-{width}{'-descriptors' if descriptors else ''}",
        kernel="kernels.triton_attention:paged_attention_kernel",
        signature=signature,
        constants={**_constants(width, queries, keys), "DESCRIPTORS": descriptors},
        num_warps=num_warps,
        num_stages=num_stages,
        aligned=("q_ptr", "out_ptr", *STRIDES, *PAGE_STRIDES, *(() if descriptors else sources)),
        targets=targets,
        max_spill_bytes=max_spill_bytes,
    )


def text(kind: str, targets: tuple[int, ...], tiling: tuple[int, int, int, int], *, max_spill_bytes: int = 0) -> Case:
    queries, keys, num_warps, num_stages = tiling
    tensors = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")
    return Case(
        name=f"text-{kind}",
        kernel="kernels.triton_attention:text_attention_kernel",
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
        kernel="kernels.triton_attention_ws:pages_kernel",
        signature={
            **dict.fromkeys(tensors, f"*{kind}"),
            **dict.fromkeys(results, "*fp32"),
            **dict.fromkeys(("pages_ptr", "num_pages_ptr"), "*i32"),
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
        kernel="kernels.triton_attention_ws:own_tokens_kernel",
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
"""The tilings of ``kernels.triton_attention``, which this module cannot import without Triton; a test compares them."""
SPECIALISED = (128, 128, 4, 2)
"""That of ``kernels.triton_attention_ws``."""

ATTENTION_CASES = [
    paged("bf16", (90, 100), HOPPER, descriptors=True),
    paged("fp16", (90,), HOPPER, descriptors=True),
    paged("bf16", (80, 89, 90, 100), HALF),
    paged("bf16", (90,), HALF, width=96),
    paged("fp32", (90,), FLOAT32, max_spill_bytes=FLOAT32_SPILL_BYTES),
    specialised_pages("bf16"),
    specialised_pages("fp16"),
    specialised_own_tokens("bf16"),
    specialised_own_tokens("fp16"),
    text("bf16", (80, 89, 90, 100), HALF),
    text("fp32", (90,), FLOAT32, max_spill_bytes=FLOAT32_SPILL_BYTES),
]
