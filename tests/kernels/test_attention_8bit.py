"""Attention over pages in 8 bits, and with products of queries and keys in 8 bits: kernels against their formulas.

NaN lies in every row that must not be read. What the rounding itself costs is measured by ``benchmarks.precision``.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.attention.choice import GATES, Work, candidates_on, choose_attention
from kernels.attention.formula import paged_attention_reference
from kernels.attention.int8 import paged_attention_int8, paged_attention_int8_reference
from kernels.fp8.formula import PageScales, quantise_rows_reference
from tests.kernels.conftest import Call
from tests.kernels.test_attention import CPU, DEVICE, ON_GPU, TOLERANCE, UNEVEN, Scene, error, tensors

WAYS = [(True, False), (False, True), (True, True)]
"""Pages in 8 bits, products in 8 bits."""
every_way = pytest.mark.parametrize(("fp8_pages", "int8"), WAYS, ids=["fp8-pages", "int8", "both"])


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Call:
    """``run(function, *arguments)``: where tensors of ``DEVICE`` go through the kernels."""
    if ON_GPU:
        return lambda function, *arguments: function(*arguments)
    call: Call = request.getfixturevalue("interpreted")
    return call


def operands(scene: Scene, fp8_pages: bool) -> tuple[list[Tensor], tuple[PageScales, ...]]:
    """Queries, own keys and values, pages; and the scales of pages, if they have any."""
    q, k, v, *pool = tensors(scene)
    if not fp8_pages:
        return [q, k, v, *pool], ()
    held, scales = zip(*map(quantise_rows_reference, pool), strict=True)
    return [q, k, v, *held], (PageScales(*(one[..., 0].transpose(1, 2).contiguous() for one in scales)),)


def attend(scene: Scene, fp8_pages: bool, int8: bool, num_segments: int | None = None) -> Tensor:
    """What the kernels give for all segments or the first ones, float64."""
    from kernels.attention.triton import paged_attention_triton  # noqa: PLC0415 - not in the tests' process
    from kernels.attention.triton_int8 import int8_attention_triton  # noqa: PLC0415
    from kernels.attention.triton_softmax import Tiling  # noqa: PLC0415

    tiling = Tiling(scene.queries, scene.keys, num_warps=4, num_stages=2, descriptors=scene.descriptors)
    table = scene.table(DEVICE, num_segments, width=3)
    (q, k, v, *pool), scales = operands(scene, fp8_pages)
    own = [x[:num_segments].to(DEVICE) for x in (q, k, v)]
    on_device = [PageScales(one.keys_PHL.to(DEVICE), one.values_PHL.to(DEVICE)) for one in scales]
    kernel = int8_attention_triton if int8 else paged_attention_triton
    return kernel(*own, *(x.to(DEVICE) for x in pool), table, *on_device, tiling=tiling).double().cpu()


def formula(scene: Scene, fp8_pages: bool, int8: bool) -> Tensor:
    (q, k, v, *pool), scales = operands(scene, fp8_pages)
    twin = paged_attention_int8_reference if int8 else paged_attention_reference
    pool = pool if fp8_pages else [x.float() for x in pool]
    return twin(q.float(), k.float(), v.float(), *pool, scene.table(CPU), *scales).double()


@pytest.mark.slow
@every_way
@pytest.mark.parametrize(
    "scene",
    [
        Scene(1, ((), (4,))),
        Scene(37, ((1,), (), (0, 4, 6)), spare_rows=3, width=48),
        Scene(32, ((6, 1), (3,)), descriptors=True, width=128),
        Scene(45, ((5, 2),), spare_rows=2, descriptors=True),
        Scene(20, ((1, 0, 4), (3,)), width=12, spare_rows=1, queries=16, keys=16),
        Scene(40, ((1,), ()), dtype=torch.bfloat16, spare_rows=8),
        *UNEVEN,
    ],
    ids=str,
)
def test_kernels_give_the_formula(scene: Scene, fp8_pages: bool, int8: bool, run: Call) -> None:
    out = run(attend, scene, fp8_pages, int8)
    assert error(out, formula(scene, fp8_pages, int8)) <= TOLERANCE[scene.dtype]


@pytest.mark.slow
@pytest.mark.parametrize("scene", UNEVEN, ids=str)
def test_kernels_read_uneven_pages_by_descriptors(scene: Scene, run: Call) -> None:
    """Each kind of row that they read in one: integers of the block itself, and pages in 8 bits."""
    scene = replace(scene, descriptors=True)
    out = run(attend, scene, True, True)
    assert error(out, formula(scene, True, True)) <= TOLERANCE[scene.dtype]


@pytest.mark.slow
@every_way
def test_a_segment_does_not_see_its_batch(fp8_pages: bool, int8: bool, run: Call) -> None:
    scene = Scene(20, ((1, 4), (2,)), queries=16, keys=16)
    assert torch.equal(run(attend, scene, fp8_pages, int8, 1)[0], run(attend, scene, fp8_pages, int8)[0])


@every_way
def test_rounding_costs_a_few_percent(fp8_pages: bool, int8: bool) -> None:
    """Of random numbers, which the formula takes apart least: each page is read, and none of it twice."""
    scene = Scene(60, ((1, 4), (2,)), width=64)
    exact = paged_attention_reference(*tensors(scene), scene.table(CPU)).double()
    assert 1e-3 < error(formula(scene, fp8_pages, int8), exact) < (0.04 if fp8_pages else 0.02)


def test_what_all_keys_have_in_common_costs_nothing() -> None:
    """A large offset of a channel would take all digits of the integers if it were not taken out."""
    scene = Scene(60, ((1, 4), (2,)), width=64)
    q, k, v, k_pages, v_pages = tensors(scene)
    offset_HK = torch.zeros(2, 64)
    offset_HK[:, 5] = 50.0
    table = scene.table(CPU)
    exact = paged_attention_reference(*(x.double() for x in (q, k, v, k_pages, v_pages)), table)
    out = paged_attention_int8(q, k + offset_HK, v, k_pages + offset_HK, v_pages, table)
    assert error(out.double(), exact) < 0.02


@every_way
def test_a_cpu_has_the_twins(fp8_pages: bool, int8: bool) -> None:
    names = [one.name for one in candidates_on(CPU, torch.float32, fp8_pages=fp8_pages, int8=int8)]
    assert names == ["torch-int8" if int8 else "torch-sdpa"]
    choice = choose(torch.float32, fp8_pages, int8)
    assert choice[0] == names[0] and choice[1] <= GATES[torch.float32]


def choose(dtype: torch.dtype, fp8_pages: bool, int8: bool) -> tuple[str, float, int]:
    """Name and error of the choice, and the number of candidates."""

    def timed(works: Mapping[str, Work]) -> Mapping[str, float]:
        return dict.fromkeys(works, 1.0)

    choice = choose_attention(CPU, dtype, 19, 2, 16, 2, timed=timed, fp8_pages=fp8_pages, int8=int8)
    error = choice.trials[0].error
    assert error is not None
    return choice.name, error, len(choice.trials)


@pytest.mark.slow
@every_way
def test_kernels_are_the_only_candidates_where_they_run(fp8_pages: bool, int8: bool, interpreted: Call) -> None:
    name, worst, count = interpreted(choose, torch.float32, fp8_pages, int8)
    assert (name, count) == ("triton-int8-float32" if int8 else "triton-float32", 1)
    assert worst <= GATES[torch.float32]


@pytest.mark.gpu
@every_way
@pytest.mark.parametrize("descriptors", [False, True])
def test_a_gpu_gives_the_formula(fp8_pages: bool, int8: bool, descriptors: bool) -> None:
    capability = torch.cuda.get_device_capability()
    if (fp8_pages and capability < (8, 9)) or (descriptors and capability[0] not in (9, 10)):
        pytest.skip("not on this GPU")
    scene = Scene(300, ((1, 4), (2,), (0, 3, 5)), width=128, dtype=torch.bfloat16, queries=128, shorter=((3, 155),))
    scene = replace(scene, keys=128 if descriptors else 64, descriptors=descriptors)
    assert error(attend(scene, fp8_pages, int8), formula(scene, fp8_pages, int8)) <= TOLERANCE[torch.bfloat16]
