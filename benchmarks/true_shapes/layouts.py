"""The files of a model folder in the two layouts people have (spec section 2): what each holds, nothing written."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.true_shapes.files import Tensors, in_shards
from benchmarks.true_shapes.names import (
    Shapes,
    diffusers_transformer,
    diffusers_vae,
    hugging_face_text,
    text_shapes,
    transformer_shapes,
    vae_shapes,
)
from benchmarks.true_shapes.sizes import ModelSizes
from benchmarks.true_shapes.tokenizer import tokenizer_json
from engine import PRESET_NAME

PREFIX = "model."
"""Of the student's names in a trainer's checkpoint."""
NUM_TRANSFORMER_SHARDS, NUM_TEXT_SHARDS = 2, 5
"""Of the published diffusers folder."""
SHARDED, SINGLE = "diffusion_pytorch_model", "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file of weights, by its path inside the folder."""

    path: str
    groups: list[Tensors]
    """The first is the one that is read, and filled with random numbers if any is."""
    is_text: bool = False
    with_optimizers: bool = False
    """Whether it ends with what a trainer needs to go on."""

    @property
    def num_bytes(self) -> int:
        """Of its tensors, without optimizers."""
        return sum(group.num_bytes for group in self.groups)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All files of a folder."""

    weights: list[WeightFile]
    texts: dict[str, str]
    """Content of small files by path, in the order in which they are written: what makes it a model comes last."""


def original(sizes: ModelSizes, *, extra: bool) -> Layout:
    """``hiar.pt`` beside the files of Wan 2.1; ``extra`` adds to it what a trainer saves beside the student."""
    student = {PREFIX + name: shape for name, shape in transformer_shapes(sizes.transformer).items()}
    keys = ["generator_ema", "generator", *(["critic"] if extra else [])]
    tokenizer = "google/umt5-xxl/tokenizer.json"
    weights = [
        WeightFile(
            path="hiar.pt",
            groups=[Tensors(key=key, shapes=student, dtype=torch.float32) for key in keys],
            with_optimizers=extra,
        ),
        WeightFile(path="Wan2.1_VAE.pth", groups=[Tensors(shapes=vae_shapes(sizes.decoder), dtype=torch.float32)]),
        WeightFile(
            path="models_t5_umt5-xxl-enc-bf16.pth",
            groups=[Tensors(shapes=text_shapes(sizes.text), dtype=torch.bfloat16)],
            is_text=True,
        ),
    ]
    transformer, decoder, text = (file.path for file in weights)
    texts = {tokenizer: tokenizer_json(), "config.json": _text(_wan_config(sizes))}
    return Layout(weights=weights, texts=texts | _manifest(sizes, transformer, decoder, text, tokenizer))


def diffusers(sizes: ModelSizes) -> Layout:
    """Shards of safetensors in a folder for each network, the text encoder in float32 as it is published."""
    transformer = diffusers_transformer(transformer_shapes(sizes.transformer))
    vae = diffusers_vae(vae_shapes(sizes.decoder), sizes.decoder.num_res_blocks)
    text = hugging_face_text(text_shapes(sizes.text))
    students, transformer_index = _shards("transformer", SHARDED, transformer, NUM_TRANSFORMER_SHARDS)
    encoders, text_index = _shards("text_encoder", "model", text, NUM_TEXT_SHARDS, is_text=True)
    decoder = WeightFile(path=f"vae/{SINGLE}", groups=[Tensors(shapes=vae, dtype=torch.float32)])
    texts = {
        **transformer_index,
        **text_index,
        "tokenizer/tokenizer.json": tokenizer_json(),
        "vae/config.json": _text(_vae_config(sizes)),
        "text_encoder/config.json": _text(_text_config(sizes)),
        "transformer/config.json": _text(_transformer_config(sizes)),
    }
    manifest = _manifest(sizes, "transformer", "vae", "text_encoder", "tokenizer")
    roll_out = manifest or {PRESET_NAME: _text({"preset": "hiar"})}
    return Layout(weights=[*students, decoder, *encoders], texts=texts | roll_out)


def _shards(
    folder: str, name: str, shapes: Shapes, count: int, *, is_text: bool = False
) -> tuple[list[WeightFile], dict[str, str]]:
    """Files of about equal size, and the index that says which tensor is where."""
    shards = in_shards(Tensors(shapes=shapes, dtype=torch.float32), count)
    files = [f"{name}-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    where = {tensor: file for file, shard in zip(files, shards, strict=True) for tensor in shard.shapes}
    index = {"metadata": {"total_size": sum(shard.num_bytes for shard in shards)}, "weight_map": where}
    weights = [
        WeightFile(path=f"{folder}/{file}", groups=[shard], is_text=is_text)
        for file, shard in zip(files, shards, strict=True)
    ]
    return weights, {f"{folder}/{name}.safetensors.index.json": _text(index)}


def _manifest(sizes: ModelSizes, transformer: str, decoder: str, text: str, tokenizer: str) -> dict[str, str]:
    """Our own description, where the layout itself stands for the published sizes."""
    if not sizes.needs_manifest:
        return {}
    content = {
        "name": "true-shapes-micro",
        "description": "The files of the 1.3B checkpoint with tiny widths; it has learned nothing.",
        "files": {"transformer": transformer, "decoder": decoder, "text": text, "tokenizer": tokenizer},
        "transformer": asdict(sizes.transformer),
        "rollout": asdict(sizes.rollout),
        "video": asdict(sizes.video),
        "decoder": asdict(sizes.decoder),
        "text": asdict(sizes.text),
        "dtype": "bfloat16",
    }
    return {"manifest.json": _text(content)}


def _wan_config(sizes: ModelSizes) -> dict[str, Any]:
    config = sizes.transformer
    return {
        "_class_name": "WanModel",
        "dim": config.dim,
        "eps": config.eps,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_dim": config.in_dim,
        "model_type": "t2v",
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "out_dim": config.in_dim,
        "text_len": config.text_len,
    }


def _transformer_config(sizes: ModelSizes) -> dict[str, Any]:
    config = sizes.transformer
    return {
        "_class_name": "WanTransformer3DModel",
        "attention_head_dim": config.head_dim,
        "cross_attn_norm": True,
        "eps": config.eps,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_channels": config.in_dim,
        "num_attention_heads": config.num_heads,
        "num_layers": config.num_layers,
        "out_channels": config.in_dim,
        "patch_size": [1, config.patch_px, config.patch_px],
        "qk_norm": "rms_norm_across_heads",
        "text_dim": config.text_dim,
    }


def _vae_config(sizes: ModelSizes) -> dict[str, Any]:
    config = sizes.decoder
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.dim,
        "dim_mult": config.dim_mult,
        "latents_mean": config.latents_mean,
        "latents_std": config.latents_std,
        "num_res_blocks": config.num_res_blocks,
        "temperal_downsample": config.temporal_downsample,
        "z_dim": config.latent_channels,
    }


def _text_config(sizes: ModelSizes) -> dict[str, Any]:
    config = sizes.text
    return {
        "architectures": ["UMT5EncoderModel"],
        "d_ff": config.dim_ffn,
        "d_kv": config.dim_attn // config.num_heads,
        "d_model": config.dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "relative_attention_num_buckets": config.num_buckets,
        "vocab_size": config.vocab_size,
    }


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
