"""Every kernel variant that the 1.3B model uses compiles for each GPU generation, within its registers."""

import pytest

from tests.kernels.attention_cases import ATTENTION_CASES
from tests.kernels.compiled import SHARED_BYTES, Case, compile_case
from tests.kernels.conftest import Call
from tests.kernels.elementwise_cases import ELEMENTWISE_CASES

CASES = [*ATTENTION_CASES, *ELEMENTWISE_CASES]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "target"),
    [pytest.param(case, target, id=f"{case.name}-sm_{target}") for case in CASES for target in case.targets],
)
def test_variant_compiles(case: Case, target: int, compiling: Call) -> None:
    compiled = compiling(compile_case, case, target)
    assert compiled.spill_bytes <= case.max_spill_bytes
    assert compiled.shared_bytes <= SHARED_BYTES[target]
    assert not compiled.is_serialized
    assert compiled.is_specialised == case.specialised
    assert compiled.num_registers > 10, "the body was optimised away"
