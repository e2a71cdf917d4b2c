"""The readable twin of the whole engine: step-first and block-first as two nested loops, in one process.

No pages, no batches, no fusion, no tickets: keys and values are Python lists, padded prompt rows are all attended, and
positions are complex128 numbers. The engine must give these latents (design, "Trust in the numbers").

Letters: F latent frames of a block, C channels, Y and X latent height and width, L tokens, E width, H heads,
K channels of a head, T text rows, R rotary pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate, layer_norm, scaled_dot_product_attention

from engine.config import Order, RolloutConfig
from engine.law.schedule import Level, clean_level, context_level, first_latent_frame, levels_of, noise_levels
from engine.law.step import step
from engine.law.window import attended_blocks, first_beside_sinks, re_encoding, sink_shift
from engine.model.dit import LEAST_SIGMA, Attention, Block, CausalWan
from engine.model.rope import pairs_by_axis

NoiseSource = Callable[[int, int], Tensor]
"""``noise(block, k)``: the noise in the input of the block's step k, [F, C, Y, X]. Step 0 starts from it alone."""

KeysValues = list[tuple[Tensor, Tensor]]
"""For each layer, the keys and values of one block, not turned to its place yet: two [L, H, K]."""

Seen = list[tuple[int, KeysValues]]
"""What a pass attends to besides its own tokens: each block's keys and values, and the latent frame it stands at."""


@dataclass
class Rollout:
    """What a roll-out produced: by step and block, and the finished latents."""

    flow: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    x0: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    latents: dict[int, Tensor] = field(default_factory=dict)


def roll_out(
    model: CausalWan,
    rollout: RolloutConfig,
    noise: NoiseSource,
    embedding_TX: Tensor,
    num_blocks: int,
    *,
    initial: Sequence[Tensor] = (),
    prompts: Mapping[int, Tensor] | None = None,
) -> Rollout:
    """Generate ``num_blocks`` blocks in the configured order (spec sections 4.2 and 4.3).

    Args:
        model: the network.
        rollout: what it was trained to do.
        noise: where noise comes from.
        embedding_TX: the padded prompt embedding [text_len, text_dim].
        num_blocks: of the whole video, the initial ones too.
        initial: latents of the first blocks, which are given: each [F, C, Y, X].
        prompts: embeddings of later prompts, by the first block that follows each.
    """
    run = step_first if rollout.order == Order.STEP_FIRST else block_first
    return run(model, rollout, noise, {0: embedding_TX, **(prompts or {})}, num_blocks, initial)


def step_first(
    model: CausalWan,
    rollout: RolloutConfig,
    noise: NoiseSource,
    prompts: Mapping[int, Tensor],
    num_blocks: int,
    initial: Sequence[Tensor],
) -> Rollout:
    """HiAR: one stage over all blocks, then the next; context at the stage's own output level."""
    num_alone = min(max(rollout.block_first_blocks, len(initial)), num_blocks)
    result = block_first(model, rollout, noise, prompts, num_alone, initial)
    blocks = {b: noise(b, 0) for b in range(num_alone, num_blocks)}
    for k in range(rollout.num_stages):
        context = Context(model, rollout)
        for b in range(num_blocks):
            context.follow(prompts, b)
            if b < num_alone:
                context.encode(b, result.latents[b], clean_level(rollout))
                continue
            level, following = noise_levels(rollout)[k : k + 2]
            flow = context.denoise(b, blocks[b], level)
            x0, blocks[b] = step(rollout, blocks[b], flow, level, following, partial(noise, b, k + 1))
            result.flow[k, b], result.x0[k, b] = flow, x0
            context.encode(b, x0 if rollout.clean_context else blocks[b], context_level(rollout, k))
    result.latents |= blocks
    return result


def block_first(
    model: CausalWan,
    rollout: RolloutConfig,
    noise: NoiseSource,
    prompts: Mapping[int, Tensor],
    num_blocks: int,
    initial: Sequence[Tensor],
) -> Rollout:
    """Self-Forcing: all stages of one block, then the next block; one clean context."""
    result, context = Rollout(), Context(model, rollout)
    for b in range(num_blocks):
        context.follow(prompts, b)
        if b < len(initial):
            x = initial[b]
        else:
            x, levels = noise(b, 0), levels_of(rollout, opening=b == len(initial))
            for k in range(len(levels) - 1):
                flow = context.denoise(b, x, levels[k])
                x0, x = step(rollout, x, flow, levels[k], levels[k + 1], partial(noise, b, k + 1))
                result.flow[k, b], result.x0[k, b] = flow, x0
        result.latents[b] = x
        context.encode(b, x, clean_level(rollout))
    return result


class Context:
    """What one stage knows of the blocks behind, and the prompt that it follows."""

    def __init__(self, model: CausalWan, rollout: RolloutConfig) -> None:
        self._model, self._rollout = model, rollout
        self._history: dict[int, KeysValues] = {}
        self._read: dict[int, Tensor] = {}
        """What each cache pass read."""
        self._first_sink = 0
        self._embedding_TX = torch.empty(0)

    def follow(self, prompts: Mapping[int, Tensor], block: int) -> None:
        """Follow the prompt that begins at ``block``, if one does; see what is behind in its light where that is due:
        in one joint pass, in which all these blocks see each other.
        """
        if block not in prompts:
            return
        self._embedding_TX = prompts[block]
        again = re_encoding(self._rollout, block, self._first_sink)
        self._first_sink = again.first_sink
        if not again.blocks:
            return
        latents = torch.cat([self._read[b] for b in again.blocks])
        start, seen = self._start(again.blocks[0]), self._placed(again.seen, again.blocks[0])
        _, own = forward(self._model, latents, clean_level(self._rollout), start, seen, self._embedding_TX)
        num_tokens = [len(self._history[b][0][0]) for b in again.blocks]
        parts = [zip(keys.split(num_tokens), values.split(num_tokens), strict=True) for keys, values in own]
        self._history |= {b: list(layers) for b, layers in zip(again.blocks, zip(*parts, strict=True), strict=True)}

    def denoise(self, block: int, x_FCYX: Tensor, level: Level) -> Tensor:
        """The denoise pass of a block at this level: its flow [F, C, Y, X]."""
        return forward(self._model, x_FCYX, level, self._start(block), self._seen(block), self._embedding_TX)[0]

    def encode(self, block: int, x_FCYX: Tensor, level: Level) -> None:
        """The cache pass of a block: later ones see it as it is here."""
        seen = self._seen(block)
        _, self._history[block] = forward(self._model, x_FCYX, level, self._start(block), seen, self._embedding_TX)
        self._read[block] = x_FCYX

    def _seen(self, block: int) -> Seen:
        attended = attended_blocks(self._rollout, block, self._first_sink)
        return self._placed(attended, first_beside_sinks(self._rollout, block, self._first_sink))

    def _placed(self, blocks: Sequence[int], first_other: int) -> Seen:
        """Blocks with their places, which sinks may leave."""
        shift = sink_shift(self._rollout, first_other, self._first_sink)
        return [(self._start(b) + (shift if b < first_other else 0), self._history[b]) for b in blocks]

    def _start(self, block: int) -> int:
        return first_latent_frame(self._rollout, block)


def forward(
    model: CausalWan, x_FCYX: Tensor, level: Level, start: int, seen: Seen, embedding_TX: Tensor
) -> tuple[Tensor, KeysValues]:
    """One pass of one block that begins at latent frame ``start``. Returns its flow [F, C, Y, X] and its own keys and
    values.
    """
    size = model.config.patch_px
    grid = (x_FCYX.shape[0], x_FCYX.shape[2] // size, x_FCYX.shape[3] // size)
    x_EFYX = model.patch_embedding(x_FCYX.transpose(0, 1)[None].to(model.dtype))[0]
    if model.position_embedding is not None:
        x_EFYX = x_EFYX + interpolate(model.position_embedding[None], grid[1:], mode="bilinear").transpose(0, 1)
    if model.frame_embedding is not None:
        first = min(start, len(model.frame_embedding) - grid[0])
        x_EFYX = x_EFYX + model.frame_embedding[first : first + grid[0]].T[:, :, None, None]
    x_LE = x_EFYX.flatten(1).T
    text_TE = model.text_embedding(embedding_TX.to(model.dtype))
    time_1E = model.embed_time(torch.tensor([level.timestep], device=x_FCYX.device))
    modulation_6E = model.time_projection(time_1E).unflatten(-1, (6, -1))[0]
    rotations_LR = exact_rotations(start, grid, model.config.head_dim).to(x_FCYX.device)
    own: KeysValues = []
    for n, layer in enumerate(model.blocks):
        assert isinstance(layer, Block)
        turned = [(turn_to(place, kv[n][0], grid), kv[n][1]) for place, kv in seen]
        x_LE, keys_values = run_layer(layer, x_LE, modulation_6E, rotations_LR, turned, text_TE)
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
    """One layer, as the three lines of spec section 1.3, item 4. Returns its own keys as they are before they turn."""
    m = (layer.modulation + modulation_6E)[0]

    def norm(x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=layer.eps)

    hidden = norm(x_LE) * (1 + m[1]) + m[0]
    q, k, v = project(layer.self_attn, hidden, hidden, layer)
    keys = torch.cat([*(kv[0] for kv in seen), turn(k, rotations_LR)])
    values = torch.cat([*(kv[1] for kv in seen), v])
    x_LE = x_LE + layer.self_attn.o(attend(turn(q, rotations_LR), keys, values)) * m[2]
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


def turn_to(start: int, k_LHK: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Keys of a block of this picture size, turned to where it stands: from latent frame ``start`` on."""
    _, rows, columns = grid
    rotations_LR = exact_rotations(start, (len(k_LHK) // (rows * columns), rows, columns), k_LHK.shape[-1])
    return turn(k_LHK, rotations_LR.to(k_LHK.device))


def exact_rotations(start: int, grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """exp(i * position * theta) per token and pair, complex128 [L, R] (spec section 1.3, item 6)."""
    frames, rows, columns = grid
    positions = torch.cartesian_prod(torch.arange(frames) + start, torch.arange(rows), torch.arange(columns)).double()
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
