"""The optimizer of matrices against PyTorch's own and against a singular value decomposition."""

import pytest
import torch

from training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_singular_values_become_about_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5 and values.max() < 1.3
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), (left @ right).flatten(1))
    assert cosine.min() > 0.97


def test_steps_are_those_of_torch_s_optimizer() -> None:
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 24), (24, 6), (6, 24))]
    theirs = [torch.nn.Parameter(one.detach().clone()) for one in mine]
    optimizer = Muon(mine, lr=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=0.03, rtol=0)  # the reference rounds to bfloat16


def test_what_has_no_gradient_stays() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    moved.grad = torch.ones(2, 3)
    Muon([still, moved], lr=0.1).step()
    assert bool((still == 1).all()) and not bool((moved == 1).all())


def test_kernels_are_matrices_of_a_row_for_each_output() -> None:
    torch.manual_seed(0)
    weights = torch.randn(8, 3, 2, 2)
    kernels = torch.nn.Parameter(weights.to(memory_format=torch.channels_last, copy=True))
    matrix = torch.nn.Parameter(weights.flatten(1).clone())
    for one in (kernels, matrix):
        one.grad = torch.ones_like(one).cumsum(0)
    Muon([kernels, matrix], lr=0.1).step()
    torch.testing.assert_close(kernels.flatten(1), matrix)
