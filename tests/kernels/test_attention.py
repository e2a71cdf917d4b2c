"""The attention kernels against their formula in float64, with NaN in every row that must not be read.

They run on a CUDA device if there is one, else in Triton's interpreter. That cuts bfloat16 instead of rounding it, so
the errors of that type are twice those of a GPU. What a compiler makes of the kernels is in ``test_compile``.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention.formula import (
    paged_attention,
    paged_attention_reference,
    text_attention,
    text_attention_reference,
)
from kernels.attention.table import PageTable, page_table
from tests.kernels.attention_cases import FLOAT32, HALF, HOPPER
from tests.kernels.conftest import Call

ROOT = Path(__file__).parents[2]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
ON_GPU = torch.cuda.is_available()
CPU = torch.device("cpu")
DEVICE = torch.device("cuda") if ON_GPU else CPU
NUM_PAGES, HEADS = 7, 2
UNLISTED = 10**6
"""A page that would be far outside the pool, and as many tokens."""


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Call:
    """``run(function, *arguments)``: where tensors of ``DEVICE`` go through the kernels."""
    if ON_GPU:
        return lambda function, *arguments: function(*arguments)
    call: Call = request.getfixturevalue("interpreted")
    return call


@dataclass(frozen=True)
class Scene:
    """Segments, their pages, and how the kernel shall cut them."""

    num_tokens: int
    page_lists: tuple[tuple[int, ...], ...]
    width: int = 32
    dtype: torch.dtype = torch.float32
    spare_rows: int = 0
    """Rows of a page beyond the tokens."""
    shorter: tuple[tuple[int, int], ...] = ()
    """Pages of which fewer tokens count, and how many do."""
    scale: float = 1.0
    """Of queries and keys."""
    queries: int = 32
    keys: int = 32
    descriptors: bool = False

    @property
    def token_lists(self) -> list[list[int]]:
        """How many tokens count of each listed page."""
        shorter = dict(self.shorter)
        return [[shorter.get(page, self.num_tokens) for page in pages] for pages in self.page_lists]

    def table(self, device: torch.device, num_segments: int | None = None, width: int = 1) -> PageTable:
        """That of all segments or the first ones; what it has behind a row is far outside the pool."""
        lists, tokens = self.page_lists[:num_segments], self.token_lists[:num_segments]
        table = page_table(lists, (), device, page_tokens=self.num_tokens, token_lists=tokens, width=width)
        for column in (table.pages_GW, table.num_tokens_GW):
            for row, pages in zip(column, lists, strict=True):
                row[len(pages) :] = UNLISTED
        return table

    def __str__(self) -> str:
        pages = "+".join(str(len(pages)) for pages in self.page_lists)
        pages += "".join(f"-of-{count}" for _, count in self.shorter)
        return f"{self.num_tokens}x{self.width}-pages-{pages}-{str(self.dtype).removeprefix('torch.')}-by-{self.keys}"


UNEVEN = [
    Scene(130, ((1, 2), (2, 1, 4), (1,)), spare_rows=3, shorter=((1, 43),)),  # a full tile and a rest
    Scene(96, ((1, 2), ()), shorter=((1, 32),)),  # full tiles alone
    Scene(96, ((0, 1, 2, 3),), shorter=((1, 1),)),
    Scene(77, ((3, 1, 2), (5, 3)), shorter=((1, 76), (3, 33), (2, 10), (5, 64))),  # more than one in a row
    Scene(20, ((1, 2), (2,)), shorter=((2, 7),)),  # less than a tile
]
"""Pages of which different numbers of tokens count."""


def tensors(scene: Scene) -> list[Tensor]:
    """Queries, own keys and values, pages; pages that nobody lists and the rows behind what counts are NaN."""
    random = torch.Generator().manual_seed(3)
    own = (len(scene.page_lists), scene.num_tokens, HEADS, scene.width)
    pool = (NUM_PAGES, scene.num_tokens + scene.spare_rows, HEADS, scene.width)
    q, k, v, k_pages, v_pages = (torch.randn(shape, generator=random) for shape in (own, own, own, pool, pool))
    unlisted = [page for page in range(NUM_PAGES) if page not in {p for pages in scene.page_lists for p in pages}]
    for pages in (k_pages, v_pages):
        pages[unlisted] = torch.nan
        pages[:, scene.num_tokens :] = torch.nan
        for page, count in scene.shorter:
            pages[page, count:] = torch.nan
    return [x.to(scene.dtype) for x in (q * scene.scale, k * scene.scale, v, k_pages * scene.scale, v_pages)]


def attend(scene: Scene, num_segments: int | None = None) -> Tensor:
    """What the kernel gives for all segments or the first ones, float64."""
    from kernels.attention.triton import Tiling, paged_attention_triton  # noqa: PLC0415 - not in the tests' process

    tiling = Tiling(scene.queries, scene.keys, num_warps=4, num_stages=2, descriptors=scene.descriptors)
    table = scene.table(DEVICE, num_segments)
    q, k, v, *pool = (x.to(DEVICE) for x in tensors(scene))
    own = (x[:num_segments] for x in (q, k, v))
    return paged_attention_triton(*own, *pool, table, tiling=tiling).double().cpu()


def attend_text(num_rows: tuple[int, ...], dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
    """What the text kernel gives and what it should give, float64; rows behind a segment's own are NaN."""
    from kernels.attention.triton_text import text_attention_triton  # noqa: PLC0415 - not in the tests' process

    random = torch.Generator().manual_seed(4)
    rows = (len(num_rows), max(num_rows), HEADS, width)
    q = torch.randn(len(num_rows), 35, HEADS, width, generator=random).to(dtype)
    k, v = (torch.randn(rows, generator=random).to(dtype) for _ in range(2))
    bias = torch.randn(rows[:2], generator=random) * 3
    for segment, count in enumerate(num_rows):
        for x in (k, v, bias):
            x[segment, count:] = torch.nan
    count = torch.tensor(num_rows, dtype=torch.int32)
    out = text_attention_triton(*(x.to(DEVICE) for x in (q, k, v, bias, count)))
    expected = text_attention_reference(*(x.double() for x in (q, k, v, bias)), count)
    return out.double().cpu(), expected


def call_public() -> tuple[float, float, bool]:
    """Largest error of the functions that callers use, and whether they went through the kernels."""
    scene = Scene(20, ((1, 3), ()), width=12, spare_rows=2)
    q, k, v, k_pages, v_pages = (x.to(DEVICE) for x in tensors(scene))
    table = page_table(scene.page_lists, (), DEVICE, page_tokens=scene.num_tokens)
    paged = paged_attention(q, k, v, k_pages, v_pages, table)
    bias, count = torch.linspace(-1, 3, 40, device=DEVICE).view(2, 20), torch.tensor([20, 3], dtype=torch.int32)
    text = text_attention(q, k, v, bias, count.to(DEVICE))
    text_expected = text_attention_reference(*(x.double().cpu() for x in (q, k, v, bias)), count)
    return (
        error(paged.double().cpu(), expected_of(scene)),
        error(text.double().cpu(), text_expected),
        "kernels.attention.triton" in sys.modules,
    )


def tilings() -> list[tuple[int, int, int, int]]:
    """Tilings that are shipped."""
    import kernels.attention.triton_softmax as shipped  # noqa: PLC0415 - not in the tests' process

    shipped_tilings = (shipped.HOPPER_TILING, shipped.HALF_TILING, shipped.FLOAT32_TILING)
    return [(t.queries, t.keys, t.num_warps, t.num_stages) for t in shipped_tilings]


def expected_of(scene: Scene) -> Tensor:
    lists, tokens = scene.page_lists, scene.token_lists
    table = page_table(lists, (), CPU, page_tokens=scene.num_tokens, token_lists=tokens)
    return paged_attention_reference(*(x.double() for x in tensors(scene)), table)


def error(out: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm of what is expected; NaN if there is any."""
    return ((out - expected).norm() / expected.norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [False, True])
@pytest.mark.parametrize(
    "scene",
    [
        Scene(1, ((), (4,))),
        Scene(15, ((2, 0),), spare_rows=1),
        Scene(64, ((6, 1), (3,))),
        Scene(77, ((1,), (), (0, 2, 3, 4, 5, 6)), spare_rows=3, width=16),
        Scene(130, ((5,),), spare_rows=62, width=64),
        Scene(45, ((5, 2),), width=128),
        Scene(40, ((1, 0, 4), (3,)), dtype=torch.float16, spare_rows=8),
        Scene(40, ((1, 0, 4), (3,)), dtype=torch.bfloat16, spare_rows=8),
        Scene(130, ((3,),), queries=128, keys=128, dtype=torch.bfloat16, width=128),
        Scene(50, ((1, 2),), queries=16, keys=64),
        *UNEVEN,
        Scene(130, ((3, 1), (0,)), queries=128, keys=128, dtype=torch.bfloat16, width=128, shorter=((3, 43),)),
    ],
    ids=str,
)
def test_kernel_gives_the_formula(scene: Scene, descriptors: bool, run: Call) -> None:
    out = run(attend, replace(scene, descriptors=descriptors))
    assert error(out, expected_of(scene)) <= TOLERANCE[scene.dtype]


@pytest.mark.slow
@pytest.mark.parametrize("width", [12, 48, 80, 96])
def test_head_widths_are_padded(width: int, run: Call) -> None:
    scene = Scene(37, ((1,), (0, 2)), width=width, spare_rows=2)
    assert error(run(attend, scene), expected_of(scene)) <= TOLERANCE[torch.float32]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_large_logits(dtype: torch.dtype, tolerance: float, run: Call) -> None:
    """Logits of thousands: float32 itself then knows their differences to 1e-4 only."""
    scene = Scene(40, ((1, 4),), scale=30.0, dtype=dtype)
    assert error(run(attend, scene), expected_of(scene)) <= tolerance


@pytest.mark.slow
def test_a_segment_does_not_see_its_batch(run: Call) -> None:
    scene = Scene(40, ((1, 4), (2,), (0, 3, 5)))
    assert torch.equal(run(attend, scene, 1)[0], run(attend, scene)[0])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_text_rows_differ_by_segment(dtype: torch.dtype, run: Call) -> None:
    out, expected = run(attend_text, (1, 50, 32, 7), dtype, 48)
    assert error(out, expected) <= TOLERANCE[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["HOPPER_TILING", "HALF_TILING"])
def test_full_window_of_the_published_model(name: str) -> None:
    """4680 tokens, 12 heads of 128, six pages: against the same numbers in float32."""
    import kernels.attention.triton as shipped  # noqa: PLC0415 - not where there is no GPU

    tiling = getattr(shipped, name)
    if tiling.descriptors and torch.cuda.get_device_capability()[0] not in (9, 10):
        pytest.skip("needs TMA and 160 KiB of shared memory")
    q, k, v = (torch.randn(2, 4680, 12, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    k_pages, v_pages = (torch.randn(8, 4736, 12, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    lists = ((0, 1, 2, 3, 4, 5), (7, 6, 1))
    tokens = ((4680,) * 6, (4680, 1560, 4680))
    k_pages[6, 1560:] = v_pages[6, 1560:] = torch.nan
    table = page_table(lists, (), DEVICE, page_tokens=4680, token_lists=tokens)
    out = shipped.paged_attention_triton(q, k, v, k_pages, v_pages, table, tiling=tiling)
    for segment, pages in enumerate(zip(lists, tokens, strict=True)):
        keys, values = (
            torch.cat([*(pool[page, :count] for page, count in zip(*pages, strict=True)), own[segment]])
            .float()
            .transpose(0, 1)[None]
            for pool, own in ((k_pages, k), (v_pages, v))
        )
        expected = scaled_dot_product_attention(q[segment].float().transpose(0, 1)[None], keys, values)
        assert error(out[segment].double(), expected[0].transpose(0, 1).double()) <= 2.5e-3


@pytest.mark.slow
def test_callers_go_through_the_kernels(run: Call) -> None:
    paged, text, loaded = run(call_public)
    assert loaded and max(paged, text) <= TOLERANCE[torch.float32]


@pytest.mark.slow
def test_compiled_tilings_are_those_that_are_shipped(compiling: Call) -> None:
    assert compiling(tilings) == [HOPPER, HALF, FLOAT32]


@pytest.mark.slow
def test_cpu_tensors_do_not_load_triton() -> None:
    program = (
        "import sys, torch, kernels.attention.formula as a, kernels.attention.table as t; x = torch.zeros(1, 3, 2, 8);"
        "a.paged_attention(x, x, x, x, x, t.page_table(((0,),), (), x.device, page_tokens=3));"
        "a.text_attention(x, x, x, torch.zeros(1, 3), torch.tensor([2], dtype=torch.int32));"
        "assert 'triton' not in sys.modules"
    )
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_page_table_pads_short_lists() -> None:
    table = page_table(((3, 1), (), (5,)), (4,), CPU, page_tokens=7)
    assert table.pages_GW.tolist() == [[3, 1], [0, 0], [5, 0]] and table.num_pages_G.tolist() == [2, 0, 1]
    assert table.write_pages_G.tolist() == [4, -1, -1]
    assert table.num_tokens_GW.tolist() == [[7, 7], [0, 0], [7, 0]]
    assert page_table(((), ()), (), CPU, page_tokens=7, width=6).num_tokens_GW.shape == (2, 6)


def test_page_table_puts_shorter_pages_last() -> None:
    """The kernels' fast loop ends at the first one; pages of one length stay in the order they came in."""
    table = page_table(((3, 1, 2, 6), (5,)), (), CPU, page_tokens=7, token_lists=((4, 7, 5, 7), (2,)))
    assert table.lists() == [[(1, 7), (6, 7), (2, 5), (3, 4)], [(5, 2)]]
    assert table.behind(1).lists() == [[(5, 2)]]


@pytest.mark.parametrize("token_lists", [((7,), ()), ((7, 7),), ((7, 8), ()), ((0, 7), ())], ids=str)
def test_page_table_refuses_tokens_that_do_not_suit_the_pages(token_lists: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="token_lists"):
        page_table(((3, 1), ()), (), CPU, page_tokens=7, token_lists=token_lists)


@pytest.mark.parametrize("scene", UNEVEN, ids=str)
def test_the_twin_reads_what_counts(scene: Scene) -> None:
    """One softmax over the rows that are left when the others are cut off."""
    q, k, v, k_pages, v_pages = (x.double() for x in tensors(scene))
    for segment, pages in enumerate(zip(scene.page_lists, scene.token_lists, strict=True)):
        keys, values = (
            torch.cat([own[segment], *(pool[page, :count] for page, count in zip(*pages, strict=True))])
            for pool, own in ((k_pages, k), (v_pages, v))
        )
        weights = (torch.einsum("lhk,thk->hlt", q[segment], keys) * scene.width**-0.5).softmax(-1)
        torch.testing.assert_close(expected_of(scene)[segment], torch.einsum("hlt,thk->lhk", weights, values))


def attend_shuffled(scene: Scene) -> Tensor:
    """What the kernel gives for a table whose rows are turned round, shorter pages first."""
    from kernels.attention.triton import Tiling, paged_attention_triton  # noqa: PLC0415 - not in the tests' process

    table = scene.table(DEVICE)
    for column in (table.pages_GW, table.num_tokens_GW):
        for row, count in zip(column, table.num_pages_G.tolist(), strict=True):
            row[:count] = row[:count].flip(0)
    tiling = Tiling(scene.queries, scene.keys, num_warps=4, num_stages=2)
    return paged_attention_triton(*(x.to(DEVICE) for x in tensors(scene)), table, tiling=tiling).double().cpu()


@pytest.mark.slow
@pytest.mark.parametrize("scene", [UNEVEN[0], UNEVEN[3]], ids=str)
def test_kernel_is_right_in_any_order(scene: Scene, run: Call) -> None:
    assert error(run(attend_shuffled, scene), expected_of(scene)) <= TOLERANCE[scene.dtype]
