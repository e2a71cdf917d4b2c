"""Compiles kernels for GPUs that need not be there, and reads from the assembler what became of them.

A case names its kernel as text, so this module loads without Triton; ``compile_case`` runs where Triton compiles, which
is not a process that has its interpreter on.
"""

import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO

SHARED_BYTES = {80: 166912, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
"""Shared memory that a block may have, by compute capability times ten (CUDA C programming guide, table of limits)."""


@dataclass(frozen=True)
class Case:
    """One variant of a kernel, as the just-in-time compiler would be asked for it."""

    name: str
    kernel: str
    """``module:function``."""
    signature: Mapping[str, str]
    """Type of each argument that is not a constant, in Triton's notation."""
    constants: Mapping[str, int | bool | float | None]
    num_warps: int
    num_stages: int
    aligned: tuple[str, ...] = ()
    """Arguments that are multiples of 16, which changes the code."""
    targets: tuple[int, ...] = tuple(SHARED_BYTES)
    max_spill_bytes: int = 0
    specialised: bool = False
    """Whether warps must have been split into some that load and some that compute."""


@dataclass(frozen=True)
class Compiled:
    """What one variant takes on one target."""

    num_registers: int
    spill_bytes: int
    """Stores and loads together, by each thread."""
    shared_bytes: int
    is_serialized: bool
    """Whether the assembler gave up running matrix products of a warp group beside other work."""
    is_specialised: bool
    """Whether warps hand registers to each other, as specialised ones do."""


def compile_case(case: Case, target: int) -> Compiled:
    """Compile for one target.

    Raises:
        Exception: whatever Triton raises for a kernel that it cannot compile.
    """
    import triton  # noqa: PLC0415 - see the module's text
    from triton import knobs  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    module, _, function = case.kernel.partition(":")
    kernel = getattr(import_module(module), function)
    names = kernel.arg_names
    assert set(names) == {*case.signature, *case.constants}, set(names) ^ {*case.signature, *case.constants}
    source = ASTSource(
        fn=kernel,
        signature={name: case.signature.get(name, "constexpr") for name in names},
        constexprs=dict(case.constants),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in case.aligned},
    )
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    # What the assembler says depends on its options, so it is Triton's own run of it that is read: none from a cache.
    with knobs.compilation.scope(), knobs.nvidia.scope(), redirect_stdout(StringIO()) as said:
        knobs.compilation.always_compile = knobs.nvidia.dump_ptxas_log = True
        binary = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    report = said.getvalue()
    return Compiled(
        num_registers=int(_find(r"Used (\d+) registers", report)),
        spill_bytes=int(_find(r"(\d+) bytes spill stores", report)) + int(_find(r"(\d+) bytes spill loads", report)),
        shared_bytes=binary.metadata.shared,
        is_serialized="serializ" in report,
        is_specialised="setmaxnreg" in binary.asm["ptx"],
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern!r} in {text!r}"
    return found[1]
