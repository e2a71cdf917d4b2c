"""Names of tensors in the checkpoints people have, and the names our modules use (spec section 2).

Our transformer and VAE use the original Wan names, our text encoder the Hugging Face names. Knows no file.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")

_TRANSFORMER_RULES = [
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.norm2\.", ".norm3."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
]

_TEXT_RULES = [
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
]

_VAE_RULES = [
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.gamma$", ".head.0.gamma"),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (r"\.conv_shortcut\.", ".shortcut."),
]

_VAE_RESIDUAL_RULES = [
    (r"\.norm1\.gamma$", ".residual.0.gamma"),
    (r"\.norm2\.gamma$", ".residual.3.gamma"),
    (r"\.conv1\.(weight|bias)$", r".residual.2.\1"),
    (r"\.conv2\.(weight|bias)$", r".residual.6.\1"),
]


def transformer_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Original Wan names from trainer wrappers (``model.``, FSDP), plain originals, or diffusers names."""
    cleaned = {_unwrap(name): value for name, value in tensors.items()}
    if any(name.startswith("condition_embedder.") for name in cleaned):
        return {_rename(name, _TRANSFORMER_RULES): value for name, value in cleaned.items()}
    return cleaned


def text_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Hugging Face UMT5 names from original Wan names or from themselves; the tied embedding appears once."""
    if "token_embedding.weight" in tensors:
        return {_rename(name, _TEXT_RULES): value for name, value in tensors.items()}
    return {name: value for name, value in tensors.items() if name != "encoder.embed_tokens.weight"}


def vae_names(tensors: Mapping[str, Value], num_res_blocks: int) -> dict[str, Value]:
    """Original Wan VAE names from diffusers names or from themselves.

    The decoder's levels are counted through in the original: each has ``num_res_blocks + 1`` residual blocks and an
    upsampler.
    """
    if "quant_conv.weight" not in tensors:
        return dict(tensors)
    return {_vae_name(name, num_res_blocks): value for name, value in tensors.items()}


def _vae_name(name: str, num_res_blocks: int) -> str:
    def flat_resnet(match: re.Match[str]) -> str:
        return f"decoder.upsamples.{int(match[1]) * (num_res_blocks + 2) + int(match[2])}."

    def flat_upsampler(match: re.Match[str]) -> str:
        return f"decoder.upsamples.{int(match[1]) * (num_res_blocks + 2) + num_res_blocks + 1}."

    in_residual = ".resnets." in name or re.match(r"^encoder\.down_blocks\.\d+\.(norm|conv)[12]\.", name)
    if in_residual:
        name = _rename(name, _VAE_RESIDUAL_RULES)
    name = re.sub(r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", flat_resnet, name)
    name = re.sub(r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", flat_upsampler, name)
    return _rename(name, _VAE_RULES)


def _unwrap(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("model.")


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
