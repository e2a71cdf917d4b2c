"""Names of tensors in the checkpoints people have, and the names our modules use (spec section 2).

Our transformer and VAE use the original Wan names, our text encoder the Hugging Face names. Knows no file.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")

_PREFIXES = re.compile(r"^((base_model|module|model|generator|diffusion_model|transformer|net|pipe|dit)\.)+")
"""What trainers and exporters put before every name of the transformer; none of its own begins so."""

_EMBEDDING, _TIED_EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"
_NO_WEIGHTS = "spiece_model"
"""The tokenizer's file, which some put among the text encoder's tensors as bytes."""

_SCALED_FP8 = re.compile(r"(^|\.)(scaled_fp8|scale_weight|weight_scale)$")
"""Of 8-bit weights that mean nothing before they are multiplied: a mark of the file, or the factor of one weight."""

_PICTURE_PARTS = re.compile(
    r"(^|\.)(img_emb|image_embedder|k_img|v_img|norm_k_img|add_[kv]_proj|norm_added_k|vace_\w+|ref_conv|control_adapter)\."
)
"""Of variants that are given a picture, a mask or a camera beside the prompt."""

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
    """Original Wan names from trainers' and exporters' (``model.``, FSDP), plain originals, or diffusers names.

    Raises:
        ValueError: two tensors come to have one name.
    """
    plain = _renamed(tensors, unwrapped)
    if any(name.startswith("condition_embedder.") for name in plain):
        return _renamed(plain, from_diffusers)
    return plain


def unwrapped(name: str) -> str:
    """A name of the transformer, or of its low-rank changes, without what trainers and exporters put before it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return _PREFIXES.sub("", name)


def from_diffusers(name: str) -> str:
    """The original Wan name for the diffusers name of a transformer's tensor."""
    return _by_rules(name, _TRANSFORMER_RULES)


def text_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Hugging Face UMT5 names from original Wan names or from themselves.

    The tied embedding appears once, and a tokenizer among the tensors not at all.

    Raises:
        ValueError: two tensors come to have one name.
    """
    tensors = {name: value for name, value in tensors.items() if name != _NO_WEIGHTS}
    if "token_embedding.weight" in tensors:
        return _renamed(tensors, lambda name: _by_rules(name, _TEXT_RULES))
    if _EMBEDDING in tensors:
        return {name: value for name, value in tensors.items() if name != _TIED_EMBEDDING}
    return {_EMBEDDING if name == _TIED_EMBEDDING else name: value for name, value in tensors.items()}


def vae_names(tensors: Mapping[str, Value], num_res_blocks: int) -> dict[str, Value]:
    """Original Wan VAE names from diffusers names or from themselves.

    The decoder's levels are counted through in the original: each has ``num_res_blocks + 1`` residual blocks and an
    upsampler.

    Raises:
        ValueError: two tensors come to have one name.
    """
    if "post_quant_conv.weight" not in tensors:
        return dict(tensors)
    return _renamed(tensors, lambda name: _vae_name(name, num_res_blocks))


def are_scaled_fp8(names: Iterable[str]) -> bool:
    """Whether a file with these names holds 8-bit weights beside their scales, in one of the usual layouts."""
    return any(_SCALED_FP8.search(name) for name in names)


def part_for_pictures(names: Iterable[str]) -> str | None:
    """A tensor that only variants for pictures, masks or cameras have, if there is one."""
    return next((name for name in names if _PICTURE_PARTS.search(name)), None)


def _renamed(tensors: Mapping[str, Value], rename: Callable[[str], str]) -> dict[str, Value]:
    renamed: dict[str, Value] = {}
    for name, value in tensors.items():
        new = rename(name)
        if new in renamed:
            raise ValueError(f"{new} is there twice, once as {name}")
        renamed[new] = value
    return renamed


def _vae_name(name: str, num_res_blocks: int) -> str:
    def flat_resnet(match: re.Match[str]) -> str:
        return f"decoder.upsamples.{int(match[1]) * (num_res_blocks + 2) + int(match[2])}."

    def flat_upsampler(match: re.Match[str]) -> str:
        return f"decoder.upsamples.{int(match[1]) * (num_res_blocks + 2) + num_res_blocks + 1}."

    in_residual = ".resnets." in name or re.match(r"^encoder\.down_blocks\.\d+\.(norm|conv)[12]\.", name)
    if in_residual:
        name = _by_rules(name, _VAE_RESIDUAL_RULES)
    name = re.sub(r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", flat_resnet, name)
    name = re.sub(r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", flat_upsampler, name)
    return _by_rules(name, _VAE_RULES)


def _by_rules(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
