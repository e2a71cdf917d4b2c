"""The kernels with specialised warps against the formula in float64, in Triton's interpreter: it runs their arithmetic.

What the interpreter does not show, the split of the warps, is in ``test_compile``; a GPU's numbers are checked where
the kernel is a candidate of ``kernels.attention.choice``. What only a GPU can show: that the warps never wait for each
other for good, and that a CUDA graph repeats descriptors that are made on the device.
"""

from contextvars import copy_context

import pytest
import torch
from torch import Tensor

from kernels.attention.scene import scenes
from tests.kernels.attention_cases import SPECIALISED
from tests.kernels.conftest import Call
from tests.kernels.test_attention import CPU, TOLERANCE, UNEVEN, Scene, error, expected_of, tensors


def attend(scene: Scene, num_segments: int | None = None) -> Tensor:
    """What the kernels give for all segments or the first ones, float64."""
    from kernels.attention.triton import Tiling  # noqa: PLC0415 - not in the tests' process
    from kernels.attention.triton_specialised import paged_attention_specialised  # noqa: PLC0415

    tiling = Tiling(scene.queries, scene.keys, num_warps=4, num_stages=2, descriptors=True)
    q, k, v, k_pages, v_pages = tensors(scene)
    q, k, v = (x[:num_segments] for x in (q, k, v))
    table = scene.table(CPU, num_segments)
    out = paged_attention_specialised(q, k, v, k_pages, v_pages, table, pages_tiling=tiling, own_tiling=tiling)
    return out.double()


def trials(capability: tuple[int, int], dtype: torch.dtype, width: int) -> dict[str, str | None]:
    """What a GPU of this capability would try, and why it would leave it out. Rows have 0, 1 and 2 pages of 3."""
    from kernels.attention.choice import check, kernels_on  # noqa: PLC0415 - not in the tests' process

    tried = scenes(CPU, dtype, (19, 2, width), 3, 3, fp8_pages=False, int8=False)
    return {one.name: check(one, tried).refusal for one in kernels_on(capability, dtype)}


def specialised_on(
    capability: tuple[int, int], dtype: torch.dtype, fp8_pages: bool, int8: bool
) -> list[tuple[bool, bool]]:
    """Of the candidate with specialised warps: whether it takes any table, and whether it is tried apart."""
    from kernels.attention.choice import kernels_on  # noqa: PLC0415 - not in the tests' process

    found = kernels_on(capability, dtype, fp8_pages=fp8_pages, int8=int8)
    return [(one.takes_any_table, one.apart_first) for one in found if one.name == "triton-specialised"]


def lent() -> tuple[bool, bool]:
    """Whether two calls give Triton the same memory, and whether other contexts have none."""
    from triton.runtime import _allocation  # noqa: PLC0415 - not in the tests' process

    from kernels.attention.triton_specialised import _lend_scratch  # noqa: PLC0415

    def take(size: int) -> int:
        _lend_scratch(CPU)
        return _allocation._allocator.get()(size, 16, None).data_ptr()

    first, second = (copy_context().run(take, size) for size in (128, 4096))
    return first == second, isinstance(_allocation._allocator.get(), _allocation.NullAllocator)


def shipped() -> tuple[int, int, int, int]:
    from kernels.attention.triton_specialised import PAGES_TILING as TILING  # noqa: PLC0415 - not in the tests' process

    return TILING.queries, TILING.keys, TILING.num_warps, TILING.num_stages


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene",
    [
        Scene(1, ((), (4,))),
        Scene(32, ((2, 0),), spare_rows=1),
        Scene(64, ((6, 1), (3,))),
        Scene(77, ((1,), (), (0, 2, 3, 4, 5, 6)), spare_rows=3, width=16),
        Scene(45, ((5, 2),), width=128),
        Scene(40, ((1, 0, 4), (3,)), scale=30.0),
        Scene(40, ((1, 0, 4), (3,)), dtype=torch.float16, spare_rows=8),
        Scene(130, ((3,), ()), queries=128, keys=128, dtype=torch.bfloat16, width=128),
        *UNEVEN,
        Scene(130, ((3, 1),), queries=128, keys=128, dtype=torch.bfloat16, width=128, shorter=((3, 43),)),
    ],
    ids=str,
)
def test_kernels_give_the_formula(scene: Scene, interpreted: Call) -> None:
    tolerance = 1e-4 if scene.scale > 1 else TOLERANCE[scene.dtype]
    assert error(interpreted(attend, scene), expected_of(scene)) <= tolerance


@pytest.mark.slow
def test_a_segment_does_not_see_its_batch(interpreted: Call) -> None:
    """Though the last tile of its queries reads rows of the next one."""
    scene = Scene(40, ((1, 4), (2,), (0, 3, 5)))
    assert torch.equal(interpreted(attend, scene, 1)[0], interpreted(attend, scene)[0])


@pytest.mark.slow
def test_it_is_a_candidate_that_takes_any_table(interpreted: Call) -> None:
    tried = interpreted(trials, (9, 0), torch.float16, 32)
    assert tried == dict.fromkeys(("triton-pointers", "triton-tma", "triton-specialised"))


@pytest.mark.slow
def test_widths_that_descriptors_do_not_take_are_left_out_with_a_reason(interpreted: Call) -> None:
    tried = interpreted(trials, (9, 0), torch.float16, 48)
    assert tried["triton-pointers"] is None
    assert (tried["triton-specialised"] or "").startswith("ValueError: heads of width 48")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype", "fp8_pages", "int8", "expected"),
    [
        ((9, 0), torch.bfloat16, False, False, [(True, True)]),
        ((9, 0), torch.float16, False, False, [(True, True)]),
        ((9, 0), torch.float32, False, False, []),
        ((9, 0), torch.bfloat16, True, False, []),
        ((9, 0), torch.bfloat16, False, True, []),
        ((8, 0), torch.bfloat16, False, False, []),
        ((10, 0), torch.bfloat16, False, False, []),
        ((12, 0), torch.bfloat16, False, False, []),
    ],
)
def test_where_it_is_a_candidate(
    capability: tuple[int, int],
    dtype: torch.dtype,
    fp8_pages: bool,
    int8: bool,
    expected: list[tuple[bool, bool]],
    interpreted: Call,
) -> None:
    assert interpreted(specialised_on, capability, dtype, fp8_pages, int8) == expected


@pytest.mark.slow
def test_descriptors_lie_at_one_address_in_whatever_context_a_call_is_made(compiling: Call) -> None:
    assert compiling(lent) == (True, True)


@pytest.mark.slow
def test_compiled_tiling_is_that_which_is_shipped(compiling: Call) -> None:
    assert compiling(shipped) == SPECIALISED
