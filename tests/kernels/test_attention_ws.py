"""The kernels with specialised warps against the formula in float64, in Triton's interpreter: it runs their arithmetic.

What the interpreter does not show, the split of the warps, is in ``test_compile``; a GPU's numbers are checked when the
kernel is a candidate of ``kernels.attention_choice``.
"""

import pytest
import torch
from torch import Tensor

from kernels.attention import page_table
from tests.kernels.attention_cases import SPECIALISED
from tests.kernels.conftest import Call
from tests.kernels.test_attention import CPU, TOLERANCE, UNLISTED, Scene, error, expected_of, tensors


def attend(scene: Scene, num_segments: int | None = None) -> Tensor:
    """What the kernels give for all segments or the first ones, float64."""
    from kernels.triton_attention import Tiling  # noqa: PLC0415 - not in the tests' process
    from kernels.triton_attention_ws import paged_attention_specialised  # noqa: PLC0415

    tiling = Tiling(scene.queries, scene.keys, num_warps=4, num_stages=2, descriptors=True)
    lists = scene.page_lists[:num_segments]
    table = page_table(lists, (), CPU)
    for row, pages in zip(table.pages_GW, lists, strict=True):
        row[len(pages) :] = UNLISTED
    q, k, v, k_pages, v_pages = tensors(scene)
    q, k, v = (x[:num_segments] for x in (q, k, v))
    out = paged_attention_specialised(
        q, k, v, k_pages, v_pages, table.pages_GW, table.num_pages_G, pages_tiling=tiling, own_tiling=tiling
    )
    return out.double()


def shipped() -> tuple[int, int, int, int]:
    from kernels.triton_attention_ws import PAGES_TILING as TILING  # noqa: PLC0415 - not in the tests' process

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
def test_compiled_tiling_is_that_which_is_shipped(compiling: Call) -> None:
    assert compiling(shipped) == SPECIALISED
