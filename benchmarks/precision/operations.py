"""Errors of single operations: attention and linear layers on three kinds of numbers, against float64.

Letters: L tokens of a block, H heads, K channels of a head, T keys, P pages, E and F widths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import gelu

from kernels.attention.formula import paged_attention_reference
from kernels.attention.int8 import paged_attention_int8_reference
from kernels.attention.table import PageTable, page_table
from kernels.fp8.formula import PageScales, fp8_linear, quantise_rows_reference
from kernels.numbers import FP8, FP8_MAX

CPU = torch.device("cpu")
NUM_TOKENS, NUM_PAGES, NUM_HEADS, WIDTH = 1170, 6, 2, 128
"""A quarter of the published model's block, its window, two of its heads."""
NUM_ROWS, MODEL_WIDTH, FFN_WIDTH = 512, 1536, 8960
OUTLIER, BIAS = 10.0, 5.0
"""Size of every 32nd channel in the outlier case; standard deviation of the channels' offsets in the biased one."""
KINDS = ("plain", "outlier channels", "biased")

Spoil = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scene:
    """One segment over a full window."""

    own: tuple[Tensor, Tensor, Tensor]
    """Queries, keys and values [1, L, H, K]."""
    pages: tuple[Tensor, Tensor]
    """Keys and values [P, L, H, K]."""

    @property
    def table(self) -> PageTable:
        """All pages, in order."""
        return page_table([tuple(range(NUM_PAGES))], (), CPU, page_tokens=self.own[0].shape[1])

    def to(self, dtype: torch.dtype) -> "Scene":
        """The same numbers in another type."""
        q, k, v = (x.to(dtype) for x in self.own)
        keys, values = (x.to(dtype) for x in self.pages)
        return Scene((q, k, v), (keys, values))


def attention_errors(kind: str) -> dict[str, float]:
    """Relative error of the attended values, by way of computing them."""
    scene = _scene(kind)
    wide = scene.to(torch.float64)
    exact = paged_attention_reference(*wide.own, *wide.pages, wide.table)
    ways: dict[str, Callable[[], Tensor]] = {
        "bfloat16": partial(_attend, paged_attention_reference, scene.to(torch.bfloat16)),
        "fp8 pages": partial(_attend, paged_attention_reference, scene, _per_token_and_head),
        "fp8 pages, one scale a page and head": partial(_attend, paged_attention_reference, scene, _per_page_and_head),
        "fp8 pages, no scales": partial(_attend, paged_attention_reference, scene, _without),
        "int8 attention": partial(_attend, paged_attention_int8_reference, scene),
        "int8 attention over fp8 pages": partial(_attend, paged_attention_int8_reference, scene, _per_token_and_head),
    }
    return {name: relative_error(way(), exact) for name, way in ways.items()}


def linear_errors(kind: str) -> dict[str, float]:
    """Relative error of products with weights, by which layer."""
    random = torch.Generator().manual_seed(2)
    hidden = _spoilt(kind, torch.randn(NUM_ROWS, MODEL_WIDTH, generator=random), random)
    inner = _spoilt(kind, torch.randn(NUM_ROWS, FFN_WIDTH, generator=random), random)
    square = torch.randn(MODEL_WIDTH, MODEL_WIDTH, generator=random) * MODEL_WIDTH**-0.5
    second = torch.randn(MODEL_WIDTH, FFN_WIDTH, generator=random) * FFN_WIDTH**-0.5
    return {
        "queries, keys, values; first of the feed-forward, bfloat16": _linear_error(hidden, square, is_fp8=False),
        "queries, keys, values; first of the feed-forward, fp8": _linear_error(hidden, square, is_fp8=True),
        "second of the feed-forward (of GELU), fp8": _linear_error(inner, second, is_fp8=True, of_gelu=True),
    }


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over norm of what is exact."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def _scene(kind: str) -> Scene:
    """Outliers and offsets are the keys'; values have outliers too."""
    random = torch.Generator().manual_seed(1)

    def numbers(count: int) -> Tensor:
        return torch.randn(count, NUM_TOKENS, NUM_HEADS, WIDTH, generator=random)

    keys = _spoilt(kind, numbers(NUM_PAGES + 1), random)
    values = numbers(NUM_PAGES + 1)
    values = _spoilt(kind, values, random) if kind == "outlier channels" else values
    return Scene((numbers(1), keys[-1:], values[-1:]), (keys[:-1], values[:-1]))


def _spoilt(kind: str, x: Tensor, random: torch.Generator) -> Tensor:
    if kind == "outlier channels":
        sizes = torch.ones(x.shape[-1])
        sizes[::32] = OUTLIER
        return x * sizes
    if kind == "biased":
        return x + BIAS * torch.randn(x.shape[-1], generator=random)
    return x


def _attend(
    attention: Callable[..., Tensor], scene: Scene, held: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
) -> Tensor:
    """By the formula, with pages as ``held`` holds them."""
    if held is None:
        return attention(*scene.own, *scene.pages, scene.table)
    (keys, key_scales), (values, value_scales) = map(held, scene.pages)
    return attention(*scene.own, keys, values, scene.table, PageScales(key_scales, value_scales))


def _per_token_and_head(pages_PLHK: Tensor) -> tuple[Tensor, Tensor]:
    """As pages are held."""
    held, scales_PLH1 = quantise_rows_reference(pages_PLHK)
    return held, scales_PLH1[..., 0].transpose(1, 2)


def _per_page_and_head(pages_PLHK: Tensor) -> tuple[Tensor, Tensor]:
    scales_P1H1 = pages_PLHK.abs().amax((1, 3), keepdim=True) / FP8_MAX
    return (pages_PLHK / scales_P1H1).to(FP8), scales_P1H1[:, 0].expand(-1, -1, NUM_TOKENS)


def _without(pages_PLHK: Tensor) -> tuple[Tensor, Tensor]:
    return pages_PLHK.to(FP8), torch.ones(1, 1, 1).expand(len(pages_PLHK), NUM_HEADS, NUM_TOKENS)


def _linear_error(x_LE: Tensor, weight_FE: Tensor, *, is_fp8: bool, of_gelu: bool = False) -> float:
    """Without bias: it would hide the error of the product."""
    wide = gelu(x_LE.double(), approximate="tanh") if of_gelu else x_LE.double()
    exact, none = wide @ weight_FE.double().t(), torch.zeros(len(weight_FE))
    if is_fp8:
        return relative_error(fp8_linear(x_LE, *quantise_rows_reference(weight_FE), none, of_gelu=of_gelu), exact)
    return relative_error(x_LE.bfloat16() @ weight_FE.bfloat16().t(), exact)
