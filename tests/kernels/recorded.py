"""What compiling gave, kept for the very sources and compiler it was made from: to compile all takes two minutes.

``python -m tests.kernels.recorded`` compiles what is not known yet and writes the file anew; whoever changes a kernel
runs it. Without it the tests compile, and are slow. A few cases are compiled all the same and compared.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from tests.kernels.attention_cases import ATTENTION_CASES, WAYS, chosen
from tests.kernels.compiled import SHARED_BYTES, Case, Compiled, compile_case
from tests.kernels.elementwise_cases import ELEMENTWISE_CASES

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "compiled.json"
CASES = [*ATTENTION_CASES, *ELEMENTWISE_CASES]
FP8_TARGETS = tuple(target for target in SHARED_BYTES if target >= 89)
"""Where pages may be in 8 bits."""


def compiled(case: Case, target: int) -> Compiled:
    """What the file tells of a case, or else what compiling it gives. Where Triton may be imported."""
    told = _told().get(_key(case, target))
    return compile_case(case, target) if told is None else Compiled(**told)


def compiled_choices(target: int, fp8_pages: bool, int8: bool) -> list[tuple[Case, Compiled]]:
    """All tilings that a GPU of this capability would be given; never none."""
    return [(case, compiled(case, target)) for case in chosen(target, fp8_pages, int8)]


@cache
def _told() -> dict[str, dict[str, int | bool]]:
    told: dict[str, dict[str, int | bool]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return told


def _key(case: Case, target: int) -> str:
    return f"{case.name}-sm_{target} {hashlib.sha256(f'{case} {_sources()}'.encode()).hexdigest()[:16]}"


@cache
def _sources() -> str:
    """A digest of all kernels and of the compiler's version: whatever else a case depends on is in it."""
    import triton  # noqa: PLC0415 - not in the process of the tests

    digest = hashlib.sha256(triton.__version__.encode())
    for path in [*sorted((ROOT / "kernels").rglob("*.py")), Path(__file__).with_name("compiled.py")]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    every = [(case, target) for case in CASES for target in case.targets]
    for fp8_pages, int8 in WAYS.values():
        targets = FP8_TARGETS if fp8_pages else SHARED_BYTES
        every += [(case, target) for target in targets for case in chosen(target, fp8_pages, int8)]
    found = {}
    for case, target in every:
        found[_key(case, target)] = asdict(compiled(case, target))
        sys.stdout.write(f"{case.name}-sm_{target}\n")
        sys.stdout.flush()
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(found.items()))
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
