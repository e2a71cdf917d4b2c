"""Every kernel variant that the 1.3B model uses compiles for each GPU generation, within its registers."""

import pytest

from tests.kernels.attention_cases import ATTENTION_CASES, WAYS, chosen
from tests.kernels.compiled import SHARED_BYTES, Case, Compiled, compile_case
from tests.kernels.conftest import Call
from tests.kernels.elementwise_cases import ELEMENTWISE_CASES

CASES = [*ATTENTION_CASES, *ELEMENTWISE_CASES]
FP8_TARGETS = tuple(target for target in SHARED_BYTES if target >= 89)
"""Where pages may be in 8 bits."""


def compile_chosen(target: int, fp8_pages: bool, int8: bool) -> list[tuple[Case, Compiled]]:
    """All tilings that a GPU of this capability would be given; never none."""
    return [(case, compile_case(case, target)) for case in chosen(target, fp8_pages, int8)]


def check(case: Case, target: int, compiled: Compiled) -> None:
    assert compiled.spill_bytes <= case.max_spill_bytes
    assert compiled.shared_bytes <= SHARED_BYTES[target]
    assert not compiled.is_serialized
    assert compiled.is_specialised == case.specialised
    assert compiled.num_registers > 10, "the body was optimised away"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "target"),
    [pytest.param(case, target, id=f"{case.name}-sm_{target}") for case in CASES for target in case.targets],
)
def test_variant_compiles(case: Case, target: int, compiling: Call) -> None:
    check(case, target, compiling(compile_case, case, target))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "fp8_pages", "int8"),
    [
        pytest.param(target, fp8_pages, int8, id=f"paged{name}-sm_{target}")
        for name, (fp8_pages, int8) in WAYS.items()
        for target in (FP8_TARGETS if fp8_pages else SHARED_BYTES)
    ],
)
def test_tilings_that_would_be_chosen_compile_without_spills(
    target: int, fp8_pages: bool, int8: bool, compiling: Call
) -> None:
    found = compiling(compile_chosen, target, fp8_pages, int8)
    assert len(found) == (2 if target in {90, 100} else 1), "by pointers, and by descriptors where there are any"
    for case, compiled in found:
        assert case.max_spill_bytes == 0
        check(case, target, compiled)
