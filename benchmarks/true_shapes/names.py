"""Shapes of all tensors of a model, by the names that original and diffusers files have for them (spec section 2).

The networks' own state dicts have the original names of transformer and VAE; the text encoder's are listed here, so
that its library is not needed. The way to diffusers names is the reverse of ``engine.model.names``.
"""

import re

import torch
from torch import nn

from engine.config import DecoderConfig, TextConfig, TransformerConfig
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.names import text_names

Shapes = dict[str, tuple[int, ...]]

_TRANSFORMER = [
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"\.modulation$", ".scale_shift_table"),
    (r"_attn\.([qkv])\.", r"_attn.to_\1."),
    (r"_attn\.o\.", "_attn.to_out.0."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
]

_VAE = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.gamma$", ".norm_out.gamma"),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.residual\.0\.gamma$", ".norm1.gamma"),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.gamma$", ".norm2.gamma"),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"^encoder\.downsamples\.", "encoder.down_blocks."),
]


def transformer_shapes(config: TransformerConfig) -> Shapes:
    """Of the transformer, by original names."""
    with torch.device("meta"):
        return _shapes(CausalWan(config))


def vae_shapes(config: DecoderConfig) -> Shapes:
    """Of the VAE, encoder and decoder, by original names."""
    with torch.device("meta"):
        return _shapes(build_decoder(config, with_encoder=True))


def text_shapes(config: TextConfig) -> Shapes:
    """Of the text encoder, by original names (spec section 2.4)."""
    wide, narrow = (config.dim_attn, config.dim), (config.dim, config.dim_attn)
    layer = {
        "norm1.weight": (config.dim,),
        "attn.q.weight": wide,
        "attn.k.weight": wide,
        "attn.v.weight": wide,
        "attn.o.weight": narrow,
        "pos_embedding.embedding.weight": (config.num_buckets, config.num_heads),
        "norm2.weight": (config.dim,),
        "ffn.gate.0.weight": (config.dim_ffn, config.dim),
        "ffn.fc1.weight": (config.dim_ffn, config.dim),
        "ffn.fc2.weight": (config.dim, config.dim_ffn),
    }
    layers = {f"blocks.{n}.{name}": shape for n in range(config.num_layers) for name, shape in layer.items()}
    return {
        "token_embedding.weight": (config.vocab_size, config.dim),
        **layers,
        "norm.weight": (config.dim,),
    }


def diffusers_transformer(shapes: Shapes) -> Shapes:
    """The transformer's original names as diffusers has them."""
    return {_rename(name, _TRANSFORMER): shape for name, shape in shapes.items()}


def diffusers_vae(shapes: Shapes, num_res_blocks: int) -> Shapes:
    """The VAE's original names as diffusers has them.

    The original counts the decoder's layers through; a level has ``num_res_blocks + 1`` residual blocks and, but for
    the last, an upsampler.
    """
    per_level = num_res_blocks + 2

    def leveled(match: re.Match[str]) -> str:
        level, layer = divmod(int(match[1]), per_level)
        inside = f"resnets.{layer}" if layer <= num_res_blocks else "upsamplers.0"
        return f"decoder.up_blocks.{level}.{inside}."

    renamed = {_rename(name, _VAE): shape for name, shape in shapes.items()}
    return {re.sub(r"^decoder\.upsamples\.(\d+)\.", leveled, name): shape for name, shape in renamed.items()}


def hugging_face_text(shapes: Shapes) -> Shapes:
    """The text encoder's original names as Hugging Face has them."""
    return text_names(shapes)


def _shapes(network: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
