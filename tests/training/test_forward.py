"""The forward of training against the oracle: same weights, same inputs, same flow; and its gradients."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import UMT5EncoderModel

from engine.config import TextConfig, TransformerConfig
from engine.law.schedule import Level
from engine.model.dit import CausalWan
from engine.model.text import umt5_encoder
from tests.model.oracle_pass import BlockSeen, oracle_pass
from training.forward import Mask, flow, text_rows, trainable_wan

TEXT = TextConfig(vocab_size=20, dim=8, dim_attn=8, dim_ffn=16, num_heads=2, num_layers=2, num_buckets=8, text_len=6)
TOKENS = torch.tensor([[5, 9, 3, 1, 0], [7, 1, 0, 0, 0]])
PROMPTS = ([5, 9, 3, 1], [7, 1])
SHAPE = (2, 3, 3, 4, 4, 4)


def model(num_layers: int = 2, position_frames: int | None = None) -> CausalWan:
    torch.manual_seed(7)
    sizes = TransformerConfig(
        dim=24,
        ffn_dim=32,
        num_heads=2,
        num_layers=num_layers,
        text_dim=8,
        text_len=6,
        freq_dim=16,
        in_dim=4,
        position_frames=position_frames,
    )
    network = trainable_wan(sizes)
    torch.nn.init.normal_(network.head.head.weight)
    return network


@pytest.fixture(scope="module")
def encoder() -> UMT5EncoderModel:
    torch.manual_seed(8)
    return umt5_encoder(TEXT)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))


def padded(encoder: UMT5EncoderModel, prompt: list[int]) -> Tensor:
    """The embedding as the oracle reads it: the prompt's rows, then zeros."""
    rows: Tensor = encoder(input_ids=torch.tensor([prompt])).last_hidden_state[0]
    return pad(rows, (0, 0, 0, TEXT.text_len - len(rows)))


@torch.no_grad()
@pytest.mark.parametrize("window_blocks", [2, 7])
def test_block_causal_is_what_the_oracle_makes_block_by_block(
    encoder: UMT5EncoderModel, latents: Tensor, window_blocks: int
) -> None:
    network, levels = model(), [Level(900.0, 0.9), Level(500.0, 0.5), Level(20.0, 0.02)]
    timesteps = torch.tensor([[level.timestep for level in levels]] * 2)
    text = text_rows(network, encoder, TOKENS)
    found = flow(network, latents, timesteps, text, Mask.BLOCK_CAUSAL, first_block=4, window_blocks=window_blocks)
    for sample, prompt in enumerate(PROMPTS):
        seen: list[BlockSeen] = []
        for block, level in enumerate(levels):
            x = latents[sample, block]
            own = seen[max(0, block - window_blocks + 1) :]
            expected, keys_values = oracle_pass(network, x, level, 4 + block, own, padded(encoder, prompt))
            seen.append(keys_values)
            torch.testing.assert_close(found[sample, block], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_samples_can_begin_with_different_blocks(encoder: UMT5EncoderModel, latents: Tensor) -> None:
    network = model(position_frames=18)
    timesteps, first = torch.full((2, 3), 700.0), torch.tensor([2, 0])
    together = flow(
        network, latents, timesteps, text_rows(network, encoder, TOKENS), Mask.BIDIRECTIONAL, first_block=first
    )
    for n in range(2):
        text, one = text_rows(network, encoder, TOKENS[n : n + 1]), slice(n, n + 1)
        alone = flow(network, latents[one], timesteps[one], text, Mask.BIDIRECTIONAL, first_block=int(first[n]))
        torch.testing.assert_close(together[one], alone, atol=2e-5, rtol=1e-4)
        other = flow(network, latents[one], timesteps[one], text, Mask.BIDIRECTIONAL, first_block=1)
        assert (alone - other).abs().max() > 0.01


@torch.no_grad()
def test_bidirectional_blocks_see_those_after_them(encoder: UMT5EncoderModel, latents: Tensor) -> None:
    """In one layer, keys and values depend on their own block alone, so the oracle can be given all of them."""
    network, level = model(num_layers=1), Level(700.0, 0.7)
    text = text_rows(network, encoder, TOKENS)
    found = flow(network, latents, torch.full((2, 3), level.timestep), text, Mask.BIDIRECTIONAL)
    for sample, prompt in enumerate(PROMPTS):
        embedding = padded(encoder, prompt)
        keys_values = [oracle_pass(network, latents[sample, b], level, b, [], embedding)[1] for b in range(3)]
        for block in range(3):
            others = [keys_values[b] for b in range(3) if b != block]
            expected, _ = oracle_pass(network, latents[sample, block], level, block, others, embedding)
            torch.testing.assert_close(found[sample, block], expected, atol=2e-5, rtol=1e-4)


def test_every_weight_has_a_gradient(encoder: UMT5EncoderModel, latents: Tensor) -> None:
    network = model()
    encoder.zero_grad()
    text = text_rows(network, encoder, TOKENS)
    flow(network, latents, torch.full((2, 3), 300.0), text, Mask.BLOCK_CAUSAL).square().mean().backward()
    without = [
        name
        for part in (network, encoder)
        for name, parameter in part.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # A bias that is added to every key of a softmax changes nothing; numbers other than 0 there are rounding.
    assert not without


def test_gradients_are_those_of_finite_differences(encoder: UMT5EncoderModel, latents: Tensor) -> None:
    network, exact_encoder = model().double(), deepcopy(encoder)
    torch.nn.Module.double(exact_encoder)
    text = text_rows(network, exact_encoder, TOKENS)
    x = latents.double().requires_grad_()
    step = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(at: Tensor) -> Tensor:
        return flow(network, at, torch.full((2, 3), 300.0), text, Mask.BLOCK_CAUSAL).square().sum()

    (gradient,) = torch.autograd.grad(loss(x), x)
    with torch.no_grad():
        slope = (loss(x + 1e-3 * step) - loss(x - 1e-3 * step)) / 2e-3
    torch.testing.assert_close((gradient * step).sum(), slope, rtol=2e-2, atol=0)


def test_learned_positions_start_as_waves_that_tell_all_places_apart() -> None:
    config = TransformerConfig(
        dim=24, ffn_dim=16, num_heads=2, num_layers=1, text_dim=8, text_len=4, freq_dim=8, position_grid=(4, 6)
    )
    table = trainable_wan(config).position_embedding
    assert table is not None and table.shape == (24, 4, 6) and table.abs().max() <= 0.2
    assert torch.pdist(table.detach().flatten(1).T).min() > 0.2
