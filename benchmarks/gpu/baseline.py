"""The transformer in plain PyTorch, computed as the reference does it: what our passes are compared with.

Eager operations only; keys and values in one contiguous cache whose content moves when a block is evicted; rotary
positions in complex128, laid out anew in every layer; all padded rows of the prompt attended; one block a forward. It
is kinder than the reference in two points: the prompt's keys and values are made once, and no cache index is read back
from the device (spec sections 1.3, 1.4, 4.1 and 8).

Letters: F latent frames of a block, C latent channels, Y and X latent height and width, L tokens, E width, H heads,
K channels of a head, T text rows or tokens of the window, N layers, R rotary pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, pad, scaled_dot_product_attention

from engine.model.dit import Block, CausalWan
from engine.model.rope import ROPE_BASE, pairs_by_axis

MAX_POSITIONS = 1024
"""Length of the reference's table of positions."""
EPS = 1e-6


class BaselineCache:
    """Keys and values of the window of one stage, oldest token first."""

    def __init__(self, model: CausalWan, window_tokens: int) -> None:
        config = model.config
        shape = (config.num_layers, window_tokens, config.num_heads, config.head_dim)
        self.keys_NTHK = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values_NTHK = torch.zeros_like(self.keys_NTHK)
        self.num_tokens = 0
        """Tokens written; equal to the window once it is full."""

    def make_room(self, layer: int, num_tokens: int) -> int:
        """Where in ``layer`` a new block begins; when the window is full, its oldest tokens are moved out."""
        window_tokens = self.keys_NTHK.shape[1]
        if self.num_tokens < window_tokens:
            return self.num_tokens
        for rows_THK in (self.keys_NTHK[layer], self.values_NTHK[layer]):
            rows_THK[:-num_tokens] = rows_THK[num_tokens:].clone()
        return window_tokens - num_tokens


class Baseline:
    """Denoise and cache passes of one video with the weights of a ``CausalWan``."""

    def __init__(self, model: CausalWan, embedding_TX: Tensor) -> None:
        """``embedding_TX``: the prompt's valid rows; they are padded with zeros to ``text_len``."""
        self.model, config = model, model.config
        self.layers = [block for block in model.blocks if isinstance(block, Block)]
        padded_TX = pad(embedding_TX, (0, 0, 0, config.text_len - len(embedding_TX))).to(model.device, model.dtype)
        text_TE = model.text_embedding(padded_TX)
        self.text_N = [self._text_keys_values(layer, text_TE) for layer in self.layers]
        self.table_PR = position_table(config.head_dim).to(model.device)

    def forward(
        self, latents_FCYX: Tensor, timestep: float, block: int, cache: BaselineCache, *, is_new: bool
    ) -> Tensor:
        """One pass: the flow [F, C, Y, X]. ``is_new`` appends to the cache (D), otherwise its tail is replaced (C)."""
        model = self.model
        size = model.config.patch_px
        grid = (latents_FCYX.shape[0], latents_FCYX.shape[2] // size, latents_FCYX.shape[3] // size)
        patches_EFYX = model.patch_embedding(latents_FCYX.transpose(0, 1)[None].to(model.dtype))[0]
        x_LE = patches_EFYX.flatten(1).transpose(0, 1)
        time_1E = model.embed_time(torch.full((1,), timestep, device=x_LE.device))
        modulation_16E = model.time_projection(time_1E).unflatten(-1, (6, -1))
        for index in range(len(self.layers)):
            x_LE = self._run_layer(index, x_LE, modulation_16E, block * grid[0], grid, cache, is_new)
        if is_new:
            cache.num_tokens = min(cache.num_tokens + len(x_LE), cache.keys_NTHK.shape[1])
        shift_1E, scale_1E = (model.head.modulation + time_1E[:, None]).unbind(1)
        patches_LX = model.head.head(norm(x_LE) * (1 + scale_1E) + shift_1E)
        return model.unpatchify(patches_LX[None], grid)[0]

    def _run_layer(
        self,
        index: int,
        x_LE: Tensor,
        modulation_16E: Tensor,
        start_frame: int,
        grid: tuple[int, int, int],
        cache: BaselineCache,
        is_new: bool,
    ) -> Tensor:
        layer = self.layers[index]
        shift_sa, scale_sa, gate_sa, shift_ffn, scale_ffn, gate_ffn = (layer.modulation + modulation_16E).unbind(1)
        hidden = norm(x_LE) * (1 + scale_sa) + shift_sa
        y_LE = self._attend_window(index, hidden, start_frame, grid, cache, is_new)
        x_LE = x_LE + y_LE * gate_sa
        x_LE = x_LE + self._attend_text(index, layer.norm3(x_LE))
        y_LE = layer.ffn(norm(x_LE) * (1 + scale_ffn) + shift_ffn)
        out_LE: Tensor = x_LE + y_LE * gate_ffn
        return out_LE

    def _attend_window(
        self,
        index: int,
        hidden_LE: Tensor,
        start_frame: int,
        grid: tuple[int, int, int],
        cache: BaselineCache,
        is_new: bool,
    ) -> Tensor:
        attention, heads = self.layers[index].self_attn, (self.layers[index].num_heads, -1)
        q_LHK = rms_norm(attention.q(hidden_LE), attention.norm_q.weight).unflatten(-1, heads)
        k_LHK = rms_norm(attention.k(hidden_LE), attention.norm_k.weight).unflatten(-1, heads)
        v_LHK = attention.v(hidden_LE).unflatten(-1, heads)
        q_LHK = self._rotate(q_LHK, start_frame, grid)
        k_LHK = self._rotate(k_LHK, start_frame, grid)
        count = len(hidden_LE)
        begin = cache.make_room(index, count) if is_new else cache.num_tokens - count
        keys_THK, values_THK = cache.keys_NTHK[index], cache.values_NTHK[index]
        keys_THK[begin : begin + count] = k_LHK
        values_THK[begin : begin + count] = v_LHK
        attended_LE = attend(q_LHK, keys_THK[: begin + count], values_THK[: begin + count])
        out_LE: Tensor = attention.o(attended_LE)
        return out_LE

    def _attend_text(self, index: int, hidden_LE: Tensor) -> Tensor:
        attention, heads = self.layers[index].cross_attn, (self.layers[index].num_heads, -1)
        q_LHK = rms_norm(attention.q(hidden_LE), attention.norm_q.weight).unflatten(-1, heads)
        out_LE: Tensor = attention.o(attend(q_LHK, *self.text_N[index]))
        return out_LE

    def _rotate(self, x_LHK: Tensor, start_frame: int, grid: tuple[int, int, int]) -> Tensor:
        frames, rows, columns = grid
        time_PR, height_PR, width_PR = self.table_PR.split(pairs_by_axis(x_LHK.shape[-1]), dim=1)
        parts = (
            time_PR[start_frame : start_frame + frames].view(frames, 1, 1, -1).expand(frames, rows, columns, -1),
            height_PR[:rows].view(1, rows, 1, -1).expand(frames, rows, columns, -1),
            width_PR[:columns].view(1, 1, columns, -1).expand(frames, rows, columns, -1),
        )
        rotations_L1R = torch.cat(parts, dim=-1).reshape(frames * rows * columns, 1, -1)
        pairs_LHR = torch.view_as_complex(x_LHK.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs_LHR * rotations_L1R).flatten(-2).to(x_LHK.dtype)

    @staticmethod
    def _text_keys_values(layer: Block, text_TE: Tensor) -> tuple[Tensor, Tensor]:
        attention, heads = layer.cross_attn, (layer.num_heads, -1)
        k_THK = rms_norm(attention.k(text_TE), attention.norm_k.weight).unflatten(-1, heads)
        return k_THK, attention.v(text_TE).unflatten(-1, heads)


def norm(x_LE: Tensor) -> Tensor:
    """LayerNorm without affine."""
    return layer_norm(x_LE, x_LE.shape[-1:], eps=EPS)


def rms_norm(x_LE: Tensor, weight_E: Tensor) -> Tensor:
    """Root-mean-square norm over the full width, step by step in float32."""
    x32_LE = x_LE.float()
    normed_LE = x32_LE * torch.rsqrt(x32_LE.pow(2).mean(dim=-1, keepdim=True) + EPS)
    return normed_LE.to(x_LE.dtype) * weight_E


def attend(q_LHK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
    """Dense attention by the backend torch chooses; heads joined again: [L, E]."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_LHK, k_THK, v_THK))
    return scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


def position_table(head_dim: int) -> Tensor:
    """Rotations of each axis' pairs at each position, complex128 [1024, R]."""
    positions = torch.arange(MAX_POSITIONS, dtype=torch.float64)
    angles = []
    for num_pairs in pairs_by_axis(head_dim):
        exponents = torch.arange(num_pairs, dtype=torch.float64) / max(num_pairs, 1)
        angles.append(torch.outer(positions, ROPE_BASE**-exponents))
    angles_PR = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angles_PR), angles_PR)
