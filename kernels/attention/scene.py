"""What ways to compute paged attention are tried on: random numbers, and some rows of what they should give.

Letters: G segments, L tokens of a segment (and of a page at most), H heads, K channels of a head, P pages of the pool,
W columns of a page table, T keys of a segment, R checked queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.attention.formula import mean_keys
from kernels.attention.int8 import rounded
from kernels.attention.table import PageTable, page_table
from kernels.fp8.formula import PageScales, load_page, quantise_rows_reference

CHECKED_ROWS = 64


@dataclass(frozen=True)
class Scene:
    """What a candidate is called with, and some rows of what it should give."""

    arguments: tuple[Tensor | PageTable | PageScales, ...]
    """Those of ``kernels.attention.formula.paged_attention``; without scales where pages have none."""
    dtype: torch.dtype
    """Of queries, and of what should come out."""
    rows_R: Tensor
    expected_GRHK: Tensor

    def error(self, out_GLHK: Tensor) -> float:
        """Norm of the difference over norm of what is expected; NaN if there is any."""
        difference = out_GLHK[:, self.rows_R].float() - self.expected_GRHK
        return float(difference.norm() / self.expected_GRHK.norm())


def scenes(
    device: torch.device,
    dtype: torch.dtype,
    shape_LHK: tuple[int, int, int],
    num_segments: int,
    num_pages: int,
    *,
    fp8_pages: bool,
    int8: bool,
) -> tuple[Scene, Scene, Scene]:
    """Random numbers under a full table, under one whose rows have different lengths, and under a full one whose rows
    begin with a page of which a third of the tokens count. An unlisted page, and what does not count, is NaN."""
    generator = torch.Generator(device).manual_seed(0)

    def random(count: int) -> Tensor:
        return torch.randn(count, *shape_LHK, generator=generator, device=device).to(dtype)

    q_GLHK, k_GLHK, v_GLHK = (random(num_segments) for _ in range(3))
    pools = [random(num_segments * num_pages + 2) for _ in range(2)]
    short_page, short_tokens = num_segments * num_pages, max(1, shape_LHK[0] // 3)
    for pool in pools:
        pool[short_page, short_tokens:] = torch.nan
        pool[-1] = torch.nan
    held, scales = _in_8_bits(pools) if fp8_pages else (pools, None)
    meant = pools if scales is None else _meant(held, scales)
    # The order of a pool that has been in use: backwards, the segments' pages between each other.
    order = range(num_segments * num_pages - 1, -1, -1)
    full = [tuple(order[segment::num_segments]) for segment in range(num_segments)]
    growing = [pages[: len(pages) * segment // num_segments] for segment, pages in enumerate(full)]
    uneven = [(short_page, *pages[1:])[: len(pages)] for pages in full]
    rows_R = torch.linspace(0, shape_LHK[0] - 1, min(CHECKED_ROWS, shape_LHK[0]), device=device).long()
    means_GHK = mean_keys(k_GLHK) if int8 else None

    def scene(page_lists: list[tuple[int, ...]]) -> Scene:
        counts = [[short_tokens if page == short_page else shape_LHK[0] for page in pages] for pages in page_lists]
        table = page_table(page_lists, (), device, page_tokens=shape_LHK[0], token_lists=counts, width=num_pages)
        expected = []
        for segment, pages in enumerate(table.lists()):
            keys, values = (
                torch.cat([*(pool[page, :count].float() for page, count in pages), own[segment].float()])
                for pool, own in zip(meant, (k_GLHK, v_GLHK), strict=True)
            )
            queries = q_GLHK[segment, rows_R].float()
            if means_GHK is not None:
                queries, keys = rounded(queries), rounded(keys - means_GHK[segment])
            expected.append(_formula(queries, keys, values))
        scaled = () if scales is None else (scales,)
        return Scene((q_GLHK, k_GLHK, v_GLHK, *held, table, *scaled), dtype, rows_R, torch.stack(expected))

    return scene(full), scene(growing), scene(uneven)


def _in_8_bits(pools_PLHK: Sequence[Tensor]) -> tuple[list[Tensor], PageScales]:
    """Keys and values of all pages as a pool in 8 bits holds them."""
    held, scales = zip(*map(quantise_rows_reference, pools_PLHK), strict=True)
    return list(held), PageScales(*(one[..., 0].transpose(1, 2).contiguous() for one in scales))


def _meant(held_PLHK: Sequence[Tensor], scales: PageScales) -> list[Tensor]:
    """What such a pool means, float32."""
    both = zip(held_PLHK, (scales.keys_PHL, scales.values_PHL), strict=True)
    return [
        torch.stack([load_page(*page, torch.float32) for page in zip(pages, its_scales, strict=True)])
        for pages, its_scales in both
    ]


def _formula(q_RHK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
    logits_HRT = torch.einsum("rhk,thk->hrt", q_RHK, k_THK) * q_RHK.shape[-1] ** -0.5
    return torch.einsum("hrt,thk->rhk", logits_HRT.softmax(-1), v_THK)
