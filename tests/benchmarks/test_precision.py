"""What few bits cost stays what the report says it is, on the smallest of its cases."""

from pathlib import Path

import pytest
import torch

from benchmarks.precision.operations import KINDS, attention_errors, linear_errors
from benchmarks.precision.rollouts import OPTIONS, drifts, golden

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "public-a"
NUM_BLOCKS = 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_attention_with_few_bits_loses_a_few_percent(kind: str) -> None:
    with torch.inference_mode():
        errors = attention_errors(kind)
    assert 1e-3 < errors["int8 attention"] < 0.06
    assert 0.01 < errors["fp8 pages"] < 0.2
    assert errors["fp8 pages"] < 1.1 * errors["fp8 pages, one scale a page and head"], "finer scales are no worse"


@pytest.mark.slow
def test_fp8_products_lose_what_two_roundings_lose() -> None:
    with torch.inference_mode():
        errors = linear_errors("plain")
    for way, error in errors.items():
        assert (0.03 < error < 0.045) if "fp8" in way else error < 0.005, way


def test_a_rollout_is_told_block_by_block() -> None:
    with torch.inference_mode():
        errors, rounding = drifts(golden(GOLDEN), NUM_BLOCKS)
    assert list(errors) == list(OPTIONS) and all(len(one) == NUM_BLOCKS for one in errors.values())
    assert errors["fp8 pages"][0] == 0, "the first block reads no page"
    assert all(1e-4 < error < 0.05 for one in errors.values() for error in one[1:])
    assert set(rounding) == {"keys", "values"} and all(0.01 < error < 0.03 for error in rounding.values())
