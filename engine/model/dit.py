"""The causal Wan transformer over a batch of segments (spec section 1.3).

One forward serves any mix of stages and videos: each segment brings its own timestep, position, prompt and page
list. Cache passes write their keys and values into their page before anyone attends in that layer, so a denoise pass
may list a page that is written in the same forward. Knows nothing of schedules, videos or devices.

Parameter names are the original checkpoint's, so a state dict loads without renaming.

Letters: G segments, L tokens of a segment, E width, H heads, K channels of a head, F latent frames, C latent channels,
Y and X latent height and width, T text rows, N layers, P pages, R rotary pairs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import TransformerConfig
from engine.law.schedule import NUM_TRAIN_TIMESTEPS
from engine.model.fp8_linear import Fp8Linear
from engine.model.rope import rotations
from engine.model.segments import ForwardInputs, PagedCache, SegmentBatch, TextContext, TextRows, lay_out
from kernels.attention.choice import PagedAttention
from kernels.attention.formula import paged_attention, text_attention
from kernels.attention.table import PageTable
from kernels.elementwise.formula import (
    gated_residual,
    gated_residual_norm,
    linear_gelu,
    modulated_norm,
    norm_rotate,
    norm_rotate_store,
    residual_modulated_norm,
    rms_norm,
)
from kernels.product import SegmentLinear, product

LEAST_SIGMA = 0.01
"""Noise level that stands in for lower ones in the flow of a model that predicts clean latents: 0 has no flow."""


class RMSNorm(nn.Module):
    """The weight of a root-mean-square norm over the full width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class Attention(nn.Module):
    """Projections shared by self- and cross-attention."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.q = SegmentLinear(config.dim, config.dim)
        self.k = SegmentLinear(config.dim, config.dim)
        self.v = SegmentLinear(config.dim, config.dim)
        self.o = SegmentLinear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim)
        self.norm_k = RMSNorm(config.dim)


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.num_heads, self.eps = layer, config.num_heads, config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 6, config.dim))
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = Attention(config)
        self.ffn = nn.Sequential(
            SegmentLinear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            SegmentLinear(config.ffn_dim, config.dim),
        )

    def forward(
        self,
        x_GLE: Tensor,
        modulation_G6E: Tensor,
        rotations_GLR: Tensor,
        inputs: ForwardInputs,
        cache: PagedCache,
        num_skipped: int,
        attention: PagedAttention,
    ) -> Tensor:
        """Run the layer. The first ``num_skipped`` segments only write their pages; the others are returned."""
        live = slice(num_skipped, None)
        shift_sa, scale_sa, *rest = (self.modulation + modulation_G6E).split(1, dim=1)
        gate_sa, shift_ffn, scale_ffn, gate_ffn = (m[live] for m in rest)
        hidden = modulated_norm(x_GLE, shift_sa, scale_sa, self.eps)
        k_GLHK, v_GLHK = self._keys_values(hidden, rotations_GLR, inputs.pages, cache)
        if num_skipped == len(x_GLE):
            return x_GLE[live]
        q_GLHK = self._queries(hidden[live], rotations_GLR[live])
        k_pages, v_pages = cache.keys_NPLHK[self.layer], cache.values_NPLHK[self.layer]
        table, scales = inputs.pages.behind(num_skipped), cache.scales(self.layer)
        scaled = () if scales is None else (scales,)
        attended = attention(q_GLHK, k_GLHK[live], v_GLHK[live], k_pages, v_pages, table, *scaled)
        y, norm3 = self.self_attn.o(attended.flatten(-2)), self.norm3
        del q_GLHK, k_GLHK, v_GLHK, attended  # a third of what lives while the feed-forward layer takes its room
        x, hidden = gated_residual_norm(x_GLE[live], y, gate_sa, norm3.weight, norm3.bias, self.eps)
        y = self._attend_text(hidden, inputs.text.behind(num_skipped))
        x, hidden = residual_modulated_norm(x, y, shift_ffn, scale_ffn, self.eps)
        return gated_residual(x, self._feed_forward(hidden), gate_ffn)

    def text_keys_values(self, text_TE: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of embedded text rows: two [T, H, K]."""
        keys = rms_norm(self.cross_attn.k(text_TE), self.cross_attn.norm_k.weight, self.eps)
        heads = (self.num_heads, -1)
        return keys.unflatten(-1, heads), self.cross_attn.v(text_TE).unflatten(-1, heads)

    def _queries(self, hidden_GLE: Tensor, rotations_GLR: Tensor) -> Tensor:
        weight = self.self_attn.norm_q.weight
        return norm_rotate(self.self_attn.q(hidden_GLE), weight, rotations_GLR, self.num_heads, self.eps)

    def _keys_values(
        self, hidden_GLE: Tensor, rotations_GLR: Tensor, pages: PageTable, cache: PagedCache
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of all segments; those of cache passes are in their pages afterwards."""
        return norm_rotate_store(
            self.self_attn.k(hidden_GLE),
            self.self_attn.v(hidden_GLE),
            self.self_attn.norm_k.weight,
            rotations_GLR,
            self.num_heads,
            self.eps,
            cache.keys_NPLHK[self.layer],
            cache.values_NPLHK[self.layer],
            pages.write_pages_G,
            cache.scales(self.layer),
        )

    def _attend_text(self, hidden_GLE: Tensor, text: TextRows) -> Tensor:
        """Cross-attention of each segment to its own prompt: no gate, no modulation, no positions."""
        q_GLE = rms_norm(self.cross_attn.q(hidden_GLE), self.cross_attn.norm_q.weight, self.eps)
        q_GLHK = q_GLE.unflatten(-1, (self.num_heads, -1))
        keys_GTHK, values_GTHK = text.keys_GNTHK[:, self.layer], text.values_GNTHK[:, self.layer]
        attended = text_attention(q_GLHK, keys_GTHK, values_GTHK, text.bias_GT, text.num_rows_G)
        out: Tensor = self.cross_attn.o(attended.flatten(-2))
        return out

    def _feed_forward(self, hidden_GLE: Tensor) -> Tensor:
        first, _, second = self.ffn
        if isinstance(second, Fp8Linear):
            out: Tensor = second(first(hidden_GLE), of_gelu=True)
            return out
        assert isinstance(first, nn.Linear)
        out = second(linear_gelu(hidden_GLE, first.weight, first.bias))
        return out


class Head(nn.Module):
    """From tokens to latent patches."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.head = SegmentLinear(config.dim, config.in_dim * config.patch_px**2)

    def forward(self, x_GLE: Tensor, time_GE: Tensor) -> Tensor:
        """Returns patches [G, L, patch_y * patch_x * C], channels fastest."""
        shift, scale = (self.modulation + time_GE[:, None, :]).split(1, dim=1)
        out: Tensor = self.head(modulated_norm(x_GLE, shift, scale, self.eps))
        return out


class CausalWan(nn.Module):
    """Predicts the flow (noise minus clean block) of denoise passes and fills the pages of cache passes."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: PagedAttention = paged_attention
        """How a forward attends to pages if it is not told."""
        patch = (1, config.patch_px, config.patch_px)
        self.patch_embedding = nn.Conv3d(config.in_dim, config.dim, kernel_size=patch, stride=patch)
        grid = config.position_grid
        self.position_embedding = None if grid is None else nn.Parameter(torch.zeros(config.dim, *grid))
        frames = config.position_frames
        self.frame_embedding = None if frames is None else nn.Parameter(torch.zeros(frames, config.dim))
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, config.dim), nn.GELU(approximate="tanh"), nn.Linear(config.dim, config.dim)
        )
        self.time_embedding = nn.Sequential(
            SegmentLinear(config.freq_dim, config.dim), nn.SiLU(), SegmentLinear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), SegmentLinear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.patch_embedding.weight.device

    def use_fp8_linears(self) -> None:
        """Hold and multiply in 8 bits what bears it best: the projections to queries, keys and values and the
        feed-forward products of all layers but the first and the last (``kernels`` spec section 5).
        """
        for block in self.blocks[1:-1]:
            assert isinstance(block, Block)
            for parent, names in ((block.self_attn, ("q", "k", "v")), (block.ffn, ("0", "2"))):
                for name in names:
                    setattr(parent, name, Fp8Linear(parent.get_submodule(name)))

    def encode_context(self, embedding_TX: Tensor) -> TextContext:
        """Keys and values of a prompt for every layer.

        Args:
            embedding_TX: the prompt's valid rows [num_tokens, text_dim]; the text_len - num_tokens zero rows that
                follow them in the padded embedding are attended too (spec section 1.3, item 7). They are equal, so
                one row with logit bias ln(count) stands for them, exactly.

        Raises:
            ValueError: more rows than ``text_len``.
        """
        num_tokens = len(embedding_TX)
        num_padding = self.config.text_len - num_tokens
        if num_padding < 0:
            raise ValueError(f"the prompt has {num_tokens} tokens, the model reads {self.config.text_len}")
        rows = embedding_TX.to(self.device, self.dtype)
        if num_padding:
            rows = functional.pad(rows, (0, 0, 0, 1))
        text_TE = self.text_embedding(rows)
        layers = [block for block in self.blocks if isinstance(block, Block)]
        keys, values = zip(*(layer.text_keys_values(text_TE) for layer in layers), strict=True)
        bias_T = torch.zeros(len(rows), device=self.device)
        if num_padding:
            bias_T[-1] = math.log(num_padding)
        return TextContext(torch.stack(keys), torch.stack(values), bias_T)

    def forward(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        """Run all segments of a batch.

        Returns:
            The flow of the denoise passes only [G - num_cache_passes, F, C, Y, X], in batch order. The pages of the
            cache passes hold their keys and values afterwards. In the last layer cache passes stop there.
        """
        return self.compute(lay_out(batch, self.config.patch_px), cache)

    def compute(self, inputs: ForwardInputs, cache: PagedCache, attention: PagedAttention | None = None) -> Tensor:
        """``forward`` on a batch that is laid out: on a GPU it never waits for the host."""
        attention = attention or self.attention
        _, num_frames, _, height, width = inputs.latents_GFCYX.shape
        grid = (num_frames, height // self.config.patch_px, width // self.config.patch_px)
        rotations_GLR = rotations(inputs.starts_G, grid, self.config.head_dim)
        time_GE = self.embed_time(inputs.timesteps_G)
        modulation_G6E = self.time_projection(time_GE).unflatten(-1, (6, -1))
        x_GLE = self.patchify(inputs.latents_GFCYX)
        if self.position_embedding is not None:
            x_GLE = x_GLE + positions(self.position_embedding, grid)
        if self.frame_embedding is not None:
            x_GLE = x_GLE + frame_positions(self.frame_embedding, inputs.starts_G, grid)
        num_cache, last_layer = inputs.num_cache, self.config.num_layers - 1
        for layer, block in enumerate(self.blocks):
            skip = num_cache if layer == last_layer else 0
            x_GLE = block(x_GLE, modulation_G6E, rotations_GLR, inputs, cache, skip, attention)
        if num_cache == len(inputs.starts_G):
            return inputs.latents_GFCYX[:0]
        out_GFCYX = self.unpatchify(self.head(x_GLE, time_GE[num_cache:]), grid)
        if not self.config.predicts_clean:
            return out_GFCYX
        return flow_to(out_GFCYX, inputs.latents_GFCYX[num_cache:], inputs.timesteps_G[num_cache:])

    def embed_time(self, timesteps_G: Tensor) -> Tensor:
        """Sinusoid in float64, cosines first, then the two-layer network. Returns [G, E]."""
        half = self.config.freq_dim // 2
        exponents = torch.arange(half, dtype=torch.float64, device=timesteps_G.device) / half
        angles = timesteps_G.double()[:, None] * 10000.0**-exponents
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.dtype)
        embedded: Tensor = self.time_embedding(sinusoid)
        return embedded

    def patchify(self, latents_GFCYX: Tensor) -> Tensor:
        """Cut latents into tokens, (latent frame, row, column) order, and embed them. Returns [G, L, E]."""
        size = self.config.patch_px
        patches = latents_GFCYX.to(self.dtype).unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
        patches_GLX = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        return product(patches_GLX, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)

    def unpatchify(self, patches_GLX: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Put patches, channels fastest, back into latents [G, F, C, Y, X]."""
        size = self.config.patch_px
        x = patches_GLX.unflatten(1, grid).unflatten(-1, (size, size, -1))
        latents: Tensor = x.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return latents


def flow_to(clean_GFCYX: Tensor, noisy_GFCYX: Tensor, timesteps_G: Tensor) -> Tensor:
    """The flow that leads from noisy latents to clean ones; their difference shrinks with the noise level."""
    sigma_G = (timesteps_G / NUM_TRAIN_TIMESTEPS).clamp(min=LEAST_SIGMA)
    return (noisy_GFCYX - clean_GFCYX) / sigma_G[:, None, None, None, None].to(noisy_GFCYX.dtype)


def positions(table_EYX: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The learned positions of a segment's tokens [L, E], stretched to its rows and columns, the same in all frames."""
    num_frames, *size = grid
    if list(table_EYX.shape[1:]) != size:
        table_EYX = functional.interpolate(table_EYX[None], size, mode="bilinear", align_corners=False)[0]
    return table_EYX.flatten(1).T.repeat(num_frames, 1)


def frame_positions(table_TE: Tensor, starts_G: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The learned positions in time of each segment's tokens [G, L, E]: late blocks have those of the last one."""
    num_frames, height, width = grid
    known_G = starts_G.clamp(max=len(table_TE) - num_frames)
    frames_GF = known_G[:, None] + torch.arange(num_frames, device=starts_G.device)
    return table_TE[frames_GF].repeat_interleave(height * width, dim=1)
