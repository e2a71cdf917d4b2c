"""Writes a model folder as the product reads it: weights, tokenizer and manifest. Knows no training run.

Weights are stored in half precision, the encoder's, which are few, in full; a folder must stay small enough for the
repository.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import nn

from engine.config import DecoderConfig, EncoderKind, RolloutConfig, TextConfig, TransformerConfig, VideoConfig

FILES = {
    "transformer": "transformer.safetensors",
    "decoder": "decoder.safetensors",
    "encoder": "encoder.safetensors",
    "text": "text_encoder.safetensors",
    "tokenizer": "tokenizer.json",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the parts are and how they are used."""

    transformer: TransformerConfig
    rollout: RolloutConfig
    video: VideoConfig
    decoder: DecoderConfig
    text: TextConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts themselves."""

    transformer: nn.Module
    decoder: nn.Module
    encoder: nn.Module
    text: nn.Module
    tokenizer: Tokenizer


def write_folder(
    folder: Path, parts: Parts, sizes: Sizes, description: str, training: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Write all files of a model; ``training`` says where the weights come from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("transformer", "decoder", "text"):
        save_part(getattr(parts, name), folder / FILES[name], dtype)
    save_part(parts.encoder, folder / FILES["encoder"], torch.float32)
    parts.tokenizer.save(str(folder / FILES["tokenizer"]))
    content = _manifest(sizes, description, training)
    (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")


def _manifest(sizes: Sizes, description: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """What ``engine.manifest`` reads."""
    decoder = sizes.decoder
    return {
        "name": "tiny",
        "description": description,
        "files": FILES,
        "transformer": dataclasses.asdict(sizes.transformer),
        "rollout": dataclasses.asdict(sizes.rollout),
        "video": dataclasses.asdict(sizes.video),
        "decoder": {"kind": decoder.kind, "latent_channels": decoder.latent_channels, "widths": decoder.widths},
        "encoder": {"kind": EncoderKind.PATCHES},
        "text": dataclasses.asdict(sizes.text),
        "training": dict(training),
    }


def save_part(module: nn.Module, path: Path, dtype: torch.dtype) -> None:
    """Write the weights; a tied tensor is written once."""
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in module.state_dict().items()}
    tensors.pop("encoder.embed_tokens.weight", None)
    path.write_bytes(save(tensors))
