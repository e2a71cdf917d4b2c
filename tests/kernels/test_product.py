"""On a CPU what comes of a segment does not depend on those beside it, to the last bit."""

import torch
from torch.nn import functional

from kernels.product import SegmentLinear, product

SHAPES = ((48, 768), (192,), (7, 64), (1, 33))


def test_a_segment_is_the_same_alone_and_beside_others() -> None:
    torch.manual_seed(0)
    for shape in SHAPES:
        x_GE, layer = torch.randn(5, *shape), SegmentLinear(shape[-1], 40)
        with torch.inference_mode():
            together = layer(x_GE)
            assert torch.equal(together, torch.cat([layer(x_1E) for x_1E in x_GE.split(1)]))
            assert torch.equal(together, product(x_GE, layer.weight, layer.bias))
        torch.testing.assert_close(together, functional.linear(x_GE, layer.weight, layer.bias))


def test_gradients_pass_as_through_a_linear_layer() -> None:
    x_GE, layer = torch.randn(3, 4, 8), SegmentLinear(8, 2)
    layer(x_GE).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x_GE.sum((0, 1)).expand(2, 8))
