"""Every kernel variant that the 1.3B model uses compiles for each GPU generation, within its registers."""

import pytest

from tests.kernels.attention_cases import WAYS
from tests.kernels.compiled import SHARED_BYTES, Case, Compiled, compile_case
from tests.kernels.conftest import Call
from tests.kernels.recorded import CASES, FP8_TARGETS, compiled, compiled_choices

BY_NAME = {case.name: case for case in CASES}


def check(case: Case, target: int, found: Compiled) -> None:
    assert found.spill_bytes <= case.max_spill_bytes
    assert found.shared_bytes <= SHARED_BYTES[target]
    assert not found.is_serialized
    assert found.is_specialised == case.specialised
    assert found.num_registers > 10, "the body was optimised away"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "target"),
    [pytest.param(case, target, id=f"{case.name}-sm_{target}") for case in CASES for target in case.targets],
)
def test_variant_compiles(case: Case, target: int, compiling: Call) -> None:
    check(case, target, compiling(compiled, case, target))


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
    found = compiling(compiled_choices, target, fp8_pages, int8)
    assert len(found) == (2 if target in {90, 100} else 1), "by pointers, and by descriptors where there are any"
    for case, result in found:
        assert case.max_spill_bytes == 0
        check(case, target, result)


@pytest.mark.slow
@pytest.mark.parametrize("target", SHARED_BYTES)
def test_what_was_recorded_is_what_compiling_gives(target: int, compiling: Call) -> None:
    case = BY_NAME["text-bf16"]
    assert compiling(compiled, case, target) == compiling(compile_case, case, target)
