"""The fused steps against formulas in float64 and against their twins, in Triton's interpreter or on a CUDA device.

Every tensor a kernel may read lies between NaNs, and so does every tensor it allocates.

Letters as in ``kernels.elementwise.formula``.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from kernels.dispatch import is_interpreted, uses_triton
from kernels.elementwise import formula as ours
from kernels.fp8.formula import PageScales, load_page
from kernels.numbers import FP8

EPS = 1e-6
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
CPU = torch.device("cpu")
SHAPES = [(2, 5, 12, 128), (3, 7, 2, 12), (1, 4, 3, 64), (1, 1, 1, 2)]
"""Segments, tokens, heads, channels of a head. The widths are 1536, 24, 192 and 2."""
TYPES = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Relative error against float64."""
TWIN_TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}
"""Against the twin, which rounds at the same points: only a few numbers may fall on the other side of a tie."""
PADDING = 64
NAN_CODE = 0x7F

Shape = tuple[int, int, int, int]
Call = Callable[..., Any]
ALL = slice(None)

every_type = pytest.mark.parametrize("dtype", TYPES, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@dataclass(frozen=True)
class Inputs:
    """Random arguments of one size, each between NaNs."""

    x_GLE: Tensor
    y_GLE: Tensor
    shift_G1E: Tensor
    scale_G1E: Tensor
    gate_G1E: Tensor
    weight_E: Tensor
    bias_E: Tensor
    rotations_GLR: Tensor


def between_nans(x: Tensor) -> Tensor:
    """Copy ``x`` into the middle of a buffer of NaN."""
    room = torch.full((x.numel() + 2 * PADDING,), torch.nan, dtype=x.dtype)
    inner = room[PADDING:-PADDING].view(x.shape)
    inner.copy_(x)
    return inner


def make_inputs(shape: Shape, dtype: torch.dtype) -> Inputs:
    """Always the same numbers for a shape and type, in whichever process."""
    num_segments, num_tokens, num_heads, head_dim = shape
    width = num_heads * head_dim
    generator = torch.Generator().manual_seed(7)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    modulation_G6E = torch.full((num_segments, 6, width), torch.nan)  # a layer's chunks are strided rows of one tensor
    modulation_G6E[:, 1::2] = 0.5 * random(num_segments, 3, width)
    shift, scale, gate = between_nans(modulation_G6E.to(dtype)).split(1, dim=1)[1::2]
    angles_GLR = 1000 * random(num_segments, num_tokens, head_dim // 2).double()
    return Inputs(
        x_GLE=between_nans((3 * random(num_segments, num_tokens, width) + 1).to(dtype)),
        y_GLE=between_nans(random(num_segments, num_tokens, width).to(dtype)),
        shift_G1E=shift,
        scale_G1E=scale,
        gate_G1E=gate,
        weight_E=between_nans(random(width).to(dtype)),
        bias_E=between_nans(random(width).to(dtype)),
        rotations_GLR=between_nans(torch.polar(torch.ones_like(angles_GLR), angles_GLR).to(torch.complex64)),
    )


def error(measured: Tensor, expected: Tensor) -> float:
    """Relative error in the Frobenius norm."""
    measured, expected = measured.double().cpu(), expected.double().cpu()
    return ((measured - expected).norm() / expected.norm()).item()


def normed(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()


def rotated(x_GLE: Tensor, weight_E: Tensor, rotations_GLR: Tensor, num_heads: int) -> Tensor:
    scaled = x_GLE / (x_GLE.square().mean(-1, keepdim=True) + EPS).sqrt() * weight_E
    even, odd = scaled.unflatten(-1, (num_heads, -1, 2)).unbind(-1)
    cos, sin = rotations_GLR.real.double()[:, :, None], rotations_GLR.imag.double()[:, :, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def exact(inputs: Inputs) -> Inputs:
    doubles = {name: value.double() for name, value in vars(inputs).items() if not value.is_complex()}
    return Inputs(**doubles, rotations_GLR=inputs.rotations_GLR)


@dataclass(frozen=True)
class Step:
    """One fused step: how to call it, and what comes out in float64."""

    call: Callable[[Inputs, int], Tensor | tuple[Tensor, ...]]
    formula: Callable[[Inputs, int], tuple[Tensor, ...]]


STEPS = {
    "modulated_norm": Step(
        lambda i, _: ours.modulated_norm(i.x_GLE, i.shift_G1E, i.scale_G1E, EPS),
        lambda i, _: (normed(i.x_GLE) * (1 + i.scale_G1E) + i.shift_G1E,),
    ),
    "gated_residual": Step(
        lambda i, _: ours.gated_residual(i.x_GLE, i.y_GLE, i.gate_G1E),
        lambda i, _: (i.x_GLE + i.y_GLE * i.gate_G1E,),
    ),
    "gated_residual_norm": Step(
        lambda i, _: ours.gated_residual_norm(i.x_GLE, i.y_GLE, i.gate_G1E, i.weight_E, i.bias_E, EPS),
        lambda i, _: (
            i.x_GLE + i.y_GLE * i.gate_G1E,
            normed(i.x_GLE + i.y_GLE * i.gate_G1E) * i.weight_E + i.bias_E,
        ),
    ),
    "residual_modulated_norm": Step(
        lambda i, _: ours.residual_modulated_norm(i.x_GLE, i.y_GLE, i.shift_G1E, i.scale_G1E, EPS),
        lambda i, _: (i.x_GLE + i.y_GLE, normed(i.x_GLE + i.y_GLE) * (1 + i.scale_G1E) + i.shift_G1E),
    ),
    "rms_norm": Step(
        lambda i, _: ours.rms_norm(i.x_GLE, i.weight_E, EPS),
        lambda i, _: (i.x_GLE / (i.x_GLE.square().mean(-1, keepdim=True) + EPS).sqrt() * i.weight_E,),
    ),
    "norm_rotate": Step(
        lambda i, heads: ours.norm_rotate(i.x_GLE, i.weight_E, i.rotations_GLR, heads, EPS),
        lambda i, heads: (rotated(i.x_GLE, i.weight_E, i.rotations_GLR, heads),),
    ),
}
every_step = pytest.mark.parametrize("step", STEPS)


@dataclass(frozen=True)
class Outcome:
    """What a step returned, and the buffers in whose middle it was allocated."""

    outputs: tuple[Tensor, ...]
    buffers: list[Tensor]


def run(step: str, shape: Shape, dtype: torch.dtype, device: torch.device, segments: slice = ALL) -> Outcome:
    """Run one step on some of the segments."""
    inputs = {name: value.to(device) for name, value in vars(make_inputs(shape, dtype)).items()}
    chosen = Inputs(**{name: value[segments] if value.ndim == 3 else value for name, value in inputs.items()})
    assert uses_triton(chosen.x_GLE)
    with poisoned_allocations() as buffers, rounding_as_gpus_do():
        out = STEPS[step].call(chosen, shape[2])
    outputs = out if isinstance(out, tuple) else (out,)
    return Outcome(tuple(x.cpu() for x in outputs), [buffer.cpu() for buffer in buffers])


def store(shape: Shape, dtype: torch.dtype, device: torch.device, write_pages: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Run ``norm_rotate_store`` with a pool of NaN [2, P, L + 2, H, K]. Returns keys, values and the pool."""
    inputs = Inputs(**{name: value.to(device) for name, value in vars(make_inputs(shape, dtype)).items()})
    _, num_tokens, num_heads, head_dim = shape
    pool = torch.full((2, 5, num_tokens + 2, num_heads, head_dim), torch.nan, dtype=dtype, device=device)
    pages = [*write_pages, *[-1] * (len(inputs.x_GLE) - len(write_pages))]
    pages_G = torch.tensor(pages, dtype=torch.int32, device=device)
    with rounding_as_gpus_do():
        keys, values = ours.norm_rotate_store(
            *(inputs.x_GLE, inputs.y_GLE, inputs.weight_E, inputs.rotations_GLR, num_heads, EPS, *pool, pages_G)
        )
    return keys.cpu(), values.cpu(), pool.cpu()


def store_in_8_bits(
    shape: Shape, dtype: torch.dtype, device: torch.device, write_pages: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ``norm_rotate_store`` with pages of e4m3. Returns keys, values, the pool [2, P, L + 2, H, K], its scales."""
    inputs = Inputs(**{name: value.to(device) for name, value in vars(make_inputs(shape, dtype)).items()})
    _, num_tokens, num_heads, head_dim = shape
    pool = torch.zeros((2, 5, num_tokens + 2, num_heads, head_dim), dtype=FP8, device=device)
    pool.view(torch.uint8).fill_(NAN_CODE)
    scales = torch.full((2, 5, num_heads, num_tokens + 2), torch.nan, device=device)
    pages = [*write_pages, *[-1] * (len(inputs.x_GLE) - len(write_pages))]
    pages_G = torch.tensor(pages, dtype=torch.int32, device=device)
    before = (inputs.x_GLE, inputs.y_GLE, inputs.weight_E, inputs.rotations_GLR, num_heads, EPS, *pool, pages_G)
    with rounding_as_gpus_do():
        keys, values = ours.norm_rotate_store(*before, PageScales(*scales))
    return keys.cpu(), values.cpu(), pool.cpu(), scales.cpu()


@contextmanager
def poisoned_allocations() -> Iterator[list[Tensor]]:
    """Let ``torch.empty_like`` return NaN between NaNs."""
    buffers: list[Tensor] = []

    def empty_like(x: Tensor) -> Tensor:
        buffers.append(torch.full((x.numel() + 2 * PADDING,), torch.nan, dtype=x.dtype, device=x.device))
        return buffers[-1][PADDING:-PADDING].view(x.shape)

    with mock.patch.object(torch, "empty_like", empty_like):
        yield buffers


@contextmanager
def rounding_as_gpus_do() -> Iterator[None]:
    """Make the interpreter round float32 to the nearest and to even, as GPUs do; it cuts digits off."""
    if not is_interpreted():
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    convert = interpreter._convert_float

    def rounding_convert(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source.name, target.name) == ("fp32", "fp8e4nv"):
            return torch.from_numpy(data).to(FP8).view(torch.uint8).numpy()
        if (source.name, target.name) == ("fp32", "bf16"):
            data = torch.from_numpy(data).bfloat16().float().numpy()  # what is left to cut off is zeros
        return convert(data, source, target, mode)

    with mock.patch.object(interpreter, "_convert_float", rounding_convert):
        yield


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Call:
    """Call a function where tensors on ``DEVICE`` go through the kernels."""
    return _here if ON_GPU else request.getfixturevalue("interpreted")


def _here(function: Call, *arguments: Any) -> Any:
    return function(*arguments)


def twin(step: str, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, ...]:
    assert not uses_triton(torch.empty(1))
    out = STEPS[step].call(make_inputs(shape, dtype), shape[2])
    return out if isinstance(out, tuple) else (out,)


@every_step
@every_shape
@every_type
def test_matches_float64_and_the_twin(call: Call, step: str, shape: Shape, dtype: torch.dtype) -> None:
    measured = call(run, step, shape, dtype, DEVICE).outputs
    formulas = STEPS[step].formula(exact(make_inputs(shape, dtype)), shape[2])
    for out, formula, expected in zip(measured, formulas, twin(step, shape, dtype), strict=True):
        assert (out.dtype, out.shape) == (dtype, expected.shape)
        assert error(out, formula) <= TOLERANCE[dtype]
        assert error(out, expected) <= TWIN_TOLERANCE[dtype]


@every_step
@every_shape
def test_fills_its_outputs_and_writes_nothing_around_them(call: Call, step: str, shape: Shape) -> None:
    outcome = call(run, step, shape, torch.float32, DEVICE)
    assert len(outcome.buffers) == len(outcome.outputs)
    for buffer in outcome.buffers:
        assert not buffer[PADDING:-PADDING].isnan().any()
        assert buffer[:PADDING].isnan().all() and buffer[-PADDING:].isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("write_pages", [(), (4,), (3, 0)], ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 12, 128), (3, 7, 2, 12)], ids=str)
@every_type
def test_keys_and_values_reach_their_pages_and_no_other(
    call: Call, dtype: torch.dtype, shape: Shape, write_pages: tuple[int, ...]
) -> None:
    keys, values, pool = call(store, shape, dtype, DEVICE, write_pages)
    twin_keys, twin_values, twin_pool = store(shape, dtype, CPU, write_pages)
    assert error(keys, twin_keys) <= TWIN_TOLERANCE[dtype]
    assert torch.equal(values, twin_values)
    for segment, page in enumerate(write_pages):
        assert torch.equal(pool[0, page, : shape[1]], keys[segment])
        assert torch.equal(pool[1, page, : shape[1]], values[segment])
    assert torch.equal(pool.isnan(), twin_pool.isnan())


@pytest.mark.parametrize("write_pages", [(), (3, 0)], ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 12, 128), (3, 7, 2, 12)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pages_in_8_bits_hold_keys_and_values_with_their_scales(
    call: Call, dtype: torch.dtype, shape: Shape, write_pages: tuple[int, ...]
) -> None:
    keys, values, pool, scales = call(store_in_8_bits, shape, dtype, DEVICE, write_pages)
    twin_keys, twin_values, twin_pool, twin_scales = store_in_8_bits(shape, dtype, CPU, write_pages)
    assert error(keys, twin_keys) <= TWIN_TOLERANCE[dtype] and torch.equal(values, twin_values)
    assert torch.equal(pool.float().isnan(), twin_pool.float().isnan())
    assert torch.equal(scales.isnan(), twin_scales.isnan())
    held = (slice(None), slice(None, shape[1]))
    for which, rows in enumerate((keys, values)):
        for segment, page in enumerate(write_pages):
            its_scales = scales[which, page][held]
            torch.testing.assert_close(its_scales, twin_scales[which, page][held], rtol=1e-2, atol=0)
            assert error(load_page(pool[which, page, : shape[1]], its_scales, torch.float32), rows[segment]) <= 0.03
            if which == 1:  # keys may differ in their last place from the twin's, values do not
                assert torch.equal(pool[which, page].view(torch.uint8), twin_pool[which, page].view(torch.uint8))


@every_step
def test_a_segment_alone_is_bit_for_bit_that_segment_in_a_batch(call: Call, step: str) -> None:
    shape = (3, 7, 2, 12)
    together = call(run, step, shape, torch.float32, DEVICE).outputs
    alone = call(run, step, shape, torch.float32, DEVICE, slice(1, 2)).outputs
    for whole, part in zip(together, alone, strict=True):
        assert torch.equal(whole[1:2], part)


@every_step
def test_a_batch_without_segments_is_returned(call: Call, step: str) -> None:
    for out in call(run, step, (1, 4, 2, 12), torch.float32, DEVICE, slice(0, 0)).outputs:
        assert len(out) == 0


@every_type
def test_linear_gelu_is_the_tanh_form(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    x_GLE = torch.randn(2, 9, 64, generator=generator).to(DEVICE, dtype)
    weight_FE = (torch.randn(160, 64, generator=generator) / 8).to(DEVICE, dtype)
    bias_F = torch.randn(160, generator=generator).to(DEVICE, dtype)
    wide = x_GLE.double() @ weight_FE.double().T + bias_F.double()
    out_GLF = ours.linear_gelu(x_GLE, weight_FE, bias_F)
    assert (out_GLF.dtype, out_GLF.shape) == (dtype, (2, 9, 160))
    assert error(out_GLF, gelu(wide, approximate="tanh")) <= TOLERANCE[dtype]
