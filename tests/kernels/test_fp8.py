"""Rounding to e4m3 and products in it: the kernel against its twin, the twin against what the type promises."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from kernels.fp8.formula import MULTIPLE, fp8_linear, load_page, quantise_rows, quantise_rows_reference, store_page
from kernels.numbers import FP8
from tests.kernels.conftest import Call
from tests.kernels.test_elementwise import CPU, DEVICE, ON_GPU, error, rounding_as_gpus_do

ROUNDING = 0.028
"""Relative error that e4m3 makes of normal numbers: 2.6 %, and 2.65 % is seen."""
ROWS = [(3, 1), (2, 5, 24), (7, 96), (2, 1000)]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(11)).to(dtype)


def meant(x8: Tensor, scales: Tensor) -> Tensor:
    return x8.float() * scales


def quantise(shape: tuple[int, ...], dtype: torch.dtype, of_gelu: bool) -> tuple[Tensor, Tensor]:
    """Rows of very different size, the first of zeros, through the kernel."""
    with rounding_as_gpus_do():
        x8, scales = quantise_rows(rows(shape, dtype).to(DEVICE), of_gelu=of_gelu)
    return x8.cpu(), scales.cpu()


def rows(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    x = random(*shape)
    sizes = torch.logspace(-3, 3, x[..., 0].numel()).view(*shape[:-1], 1)
    x = x * sizes
    x.view(-1, shape[-1])[0] = 0
    return x.to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("of_gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_the_kernel_gives_the_twins_codes(
    shape: tuple[int, ...], dtype: torch.dtype, of_gelu: bool, request: pytest.FixtureRequest
) -> None:
    call: Call = (lambda function, *rest: function(*rest)) if ON_GPU else request.getfixturevalue("interpreted")
    x8, scales = call(quantise, shape, dtype, of_gelu)
    twin8, twin_scales = quantise_rows_reference(rows(shape, dtype), of_gelu=of_gelu)
    assert x8.dtype == FP8 and x8.shape == twin8.shape and scales.shape == twin_scales.shape
    if of_gelu:  # sigmoid and tanh differ in the last place, which may move a number over a tie
        torch.testing.assert_close(scales, twin_scales, rtol=1e-4, atol=0)
        assert error(meant(x8, scales)[1:], meant(twin8, twin_scales)[1:]) <= 5e-3
    else:
        assert torch.equal(scales, twin_scales)
        assert torch.equal(x8.view(torch.uint8), twin8.view(torch.uint8))


def test_rounding_loses_what_three_bits_of_mantissa_lose() -> None:
    x = random(50, 128)
    x8, scales = quantise_rows(x)
    assert error(meant(x8, scales), x) <= ROUNDING
    assert (x8.float().abs().amax(-1) == 448).all()


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e30])
def test_no_size_overflows(size: float) -> None:
    x = random(4, 64) * size
    x8, scales = quantise_rows(x)
    assert error(meant(x8, scales), x) <= ROUNDING


def test_zeros_stay_zeros() -> None:
    x8, scales = quantise_rows(torch.zeros(2, 8))
    assert (meant(x8, scales) == 0).all() and torch.isfinite(scales).all()


def test_a_page_gives_back_what_was_stored() -> None:
    """Its rows behind the tokens are left alone."""
    x_LHK = random(5, 3, 32)
    page, scales = torch.zeros(7, 3, 32).to(FP8), torch.full((3, 7), torch.nan)
    store_page(x_LHK, page, scales)
    assert error(load_page(page[:5], scales[:, :5], torch.float32), x_LHK) <= ROUNDING
    assert scales[:, 5:].isnan().all() and (page[5:].float() == 0).all()


@pytest.mark.parametrize("of_gelu", [False, True])
def test_a_product_in_8_bits_is_near_the_product(of_gelu: bool) -> None:
    """Both factors are rounded, so the errors add as squares: about 3.7 %."""
    x, weight, bias = random(3, 20, 256), random(96, 256) / 16, random(96)
    weight8, scales = quantise_rows(weight)
    exact = linear(gelu(x, approximate="tanh") if of_gelu else x, weight, bias)
    out = fp8_linear(x, weight8, scales, bias, of_gelu=of_gelu)
    assert out.shape == (3, 20, 96)
    assert 0.01 < error(out - bias, exact - bias) <= 1.5 * ROUNDING


@pytest.mark.gpu
def test_a_gpu_multiplies_what_the_twin_multiplies() -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no e4m3")
    x, weight, bias = random(130, 256), random(7 * MULTIPLE, 256) / 16, random(7 * MULTIPLE)
    x, weight, bias = (one.to(torch.bfloat16) for one in (x, weight, bias))
    weight8, scales = quantise_rows_reference(weight)
    expected = fp8_linear(x.to(CPU), weight8, scales, bias)
    out = fp8_linear(x.cuda(), weight8.cuda(), scales.cuda(), bias.cuda())
    assert error(out, expected) <= 1e-2
