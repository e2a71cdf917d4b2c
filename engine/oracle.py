"""The readable twin of the whole engine: step-first and block-first as two nested loops, in one process.

No pages, no batches, no fusion, no tickets: keys and values are Python lists, padded prompt rows are all attended, and
positions are complex128 numbers. The engine must give these latents (design, "Trust in the numbers").

Letters: F latent frames of a block, C channels, Y and X latent height and width, L tokens, E width, H heads,
K channels of a head, T text rows, R rotary pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate, layer_norm, scaled_dot_product_attention

from engine.config import Order, RolloutConfig
from engine.law.schedule import Level, attended_blocks, noise_levels
from engine.law.step import predict_x0, re_noise
from engine.model.dit import LEAST_SIGMA, Attention, Block, CausalWan
from engine.model.rope import pairs_by_axis

NoiseSource = Callable[[int, int], Tensor]
"""``noise(block, stage)``: the noise in the input of ``stage``, [F, C, Y, X]. Stage 0 starts from it alone."""

KeysValues = list[tuple[Tensor, Tensor]]
"""For each layer, the keys and values of one block: two [L, H, K]."""


@dataclass
class Rollout:
    """What a roll-out produced: by stage and block, and the finished latents."""

    flow: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    x0: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    latents: dict[int, Tensor] = field(default_factory=dict)


def roll_out(
    model: CausalWan, rollout: RolloutConfig, noise: NoiseSource, embedding_TX: Tensor, num_blocks: int
) -> Rollout:
    """Generate ``num_blocks`` blocks in the configured order (spec sections 4.2 and 4.3).

    ``embedding_TX`` is the padded prompt embedding [text_len, text_dim].
    """
    run = step_first if rollout.order == Order.STEP_FIRST else block_first
    return run(model, rollout, noise, embedding_TX, num_blocks)


def step_first(
    model: CausalWan, rollout: RolloutConfig, noise: NoiseSource, embedding_TX: Tensor, num_blocks: int
) -> Rollout:
    """HiAR: one stage over all blocks, then the next; context at the stage's own output level."""
    levels, result = noise_levels(rollout), Rollout()
    blocks = {b: noise(b, 0) for b in range(num_blocks)}
    for stage in range(rollout.num_stages):
        history: dict[int, KeysValues] = {}
        for b in range(num_blocks):
            seen = [history[earlier] for earlier in attended_blocks(rollout, b)]
            flow, _ = forward(model, blocks[b], levels[stage], b, seen, embedding_TX)
            x0 = predict_x0(blocks[b], flow, levels[stage])
            result.flow[stage, b], result.x0[stage, b] = flow, x0
            is_last = stage + 1 == rollout.num_stages
            blocks[b] = x0 if is_last else re_noise(x0, noise(b, stage + 1), levels[stage + 1])
            _, history[b] = forward(model, blocks[b], levels[stage + 1], b, seen, embedding_TX)
    result.latents = blocks
    return result


def block_first(
    model: CausalWan, rollout: RolloutConfig, noise: NoiseSource, embedding_TX: Tensor, num_blocks: int
) -> Rollout:
    """Self-Forcing: all stages of one block, then the next block; one clean context."""
    levels, result = noise_levels(rollout), Rollout()
    history: dict[int, KeysValues] = {}
    for b in range(num_blocks):
        seen = [history[earlier] for earlier in attended_blocks(rollout, b)]
        x = noise(b, 0)
        for stage in range(rollout.num_stages):
            flow, _ = forward(model, x, levels[stage], b, seen, embedding_TX)
            x = predict_x0(x, flow, levels[stage])
            result.flow[stage, b], result.x0[stage, b] = flow, x
            if stage + 1 < rollout.num_stages:
                x = re_noise(x, noise(b, stage + 1), levels[stage + 1])
        result.latents[b] = x
        _, history[b] = forward(model, x, levels[-1], b, seen, embedding_TX)
    return result


def forward(
    model: CausalWan, x_FCYX: Tensor, level: Level, block: int, seen: list[KeysValues], embedding_TX: Tensor
) -> tuple[Tensor, KeysValues]:
    """One pass of one block. Returns its flow [F, C, Y, X] and its own keys and values."""
    size = model.config.patch_px
    grid = (x_FCYX.shape[0], x_FCYX.shape[2] // size, x_FCYX.shape[3] // size)
    x_EFYX = model.patch_embedding(x_FCYX.transpose(0, 1)[None].to(model.dtype))[0]
    if model.position_embedding is not None:
        x_EFYX = x_EFYX + interpolate(model.position_embedding[None], grid[1:], mode="bilinear").transpose(0, 1)
    if model.frame_embedding is not None:
        first = min(block, len(model.frame_embedding) // grid[0] - 1) * grid[0]
        x_EFYX = x_EFYX + model.frame_embedding[first : first + grid[0]].T[:, :, None, None]
    x_LE = x_EFYX.flatten(1).T
    text_TE = model.text_embedding(embedding_TX.to(model.dtype))
    time_1E = model.embed_time(torch.tensor([level.timestep], device=x_FCYX.device))
    modulation_6E = model.time_projection(time_1E).unflatten(-1, (6, -1))[0]
    rotations_LR = exact_rotations(block, grid, model.config.head_dim).to(x_FCYX.device)
    own: KeysValues = []
    for n, layer in enumerate(model.blocks):
        assert isinstance(layer, Block)
        x_LE, keys_values = run_layer(layer, x_LE, modulation_6E, rotations_LR, [kv[n] for kv in seen], text_TE)
        own.append(keys_values)
    patches = model.head(x_LE[None], time_1E)
    out_FCYX = model.unpatchify(patches, grid)[0]
    if model.config.predicts_clean:
        out_FCYX = (x_FCYX - out_FCYX) / max(level.sigma, LEAST_SIGMA)
    return out_FCYX, own


def run_layer(
    layer: Block,
    x_LE: Tensor,
    modulation_6E: Tensor,
    rotations_LR: Tensor,
    seen: list[tuple[Tensor, Tensor]],
    text_TE: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One layer, as the three lines of spec section 1.3, item 4."""
    m = (layer.modulation + modulation_6E)[0]

    def norm(x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=layer.eps)

    hidden = norm(x_LE) * (1 + m[1]) + m[0]
    q, k, v = project(layer.self_attn, hidden, hidden, layer)
    q, k = turn(q, rotations_LR), turn(k, rotations_LR)
    keys, values = torch.cat([*(kv[0] for kv in seen), k]), torch.cat([*(kv[1] for kv in seen), v])
    x_LE = x_LE + layer.self_attn.o(attend(q, keys, values)) * m[2]
    x_LE = x_LE + layer.cross_attn.o(attend(*project(layer.cross_attn, layer.norm3(x_LE), text_TE, layer)))
    x_LE = x_LE + layer.ffn(norm(x_LE) * (1 + m[4]) + m[3]) * m[5]
    return x_LE, (k, v)


def project(attention: Attention, x_LE: Tensor, source_TE: Tensor, layer: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of x, keys and values of ``source``; queries and keys normed over the full width. Three [., H, K]."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return (x.float() / (x.float().square().mean(-1, keepdim=True) + layer.eps).sqrt()).to(x.dtype) * weight

    q, k = norm(attention.q(x_LE), attention.norm_q.weight), norm(attention.k(source_TE), attention.norm_k.weight)
    v: Tensor = attention.v(source_TE)
    heads = (layer.num_heads, -1)
    return q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)


def attend(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
    """Dense attention; heads joined again: [L, E]."""
    q, k, v = (x.transpose(0, 1) for x in (q_LHK, k_THK, v_THK))
    return scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).flatten(1)


def exact_rotations(block: int, grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """exp(i * position * theta) per token and pair, complex128 [L, R] (spec section 1.3, item 6)."""
    frames, rows, columns = grid
    positions = torch.cartesian_prod(
        torch.arange(frames) + block * frames, torch.arange(rows), torch.arange(columns)
    ).double()
    angles = []
    for axis, pairs in enumerate(pairs_by_axis(head_dim)):
        theta = 10000.0 ** (-2 * torch.arange(pairs, dtype=torch.float64) / (2 * pairs))
        angles.append(positions[:, axis, None] * theta)
    angle_LR = torch.cat(angles, dim=1)
    return torch.complex(angle_LR.cos(), angle_LR.sin())


def turn(x_LHK: Tensor, rotations_LR: Tensor) -> Tensor:
    """Multiply neighbouring channel pairs by their rotation, in complex128."""
    pairs = torch.view_as_complex(x_LHK.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations_LR[:, None, :]).flatten(-2).to(x_LHK.dtype)
