"""Reading a model folder: what it holds, by its own manifest or by the layout people already have.

Three layouts: ours (``manifest.json``), diffusers (``transformer/config.json`` beside ``vae/`` and ``text_encoder/``)
and original (``config.json`` of a WanModel beside ``hiar.pt``, the Wan VAE and UMT5 files). A model that has the Wan
VAE may have the tiny decoder ``taew2_1`` beside it. Opens small JSON files only; no tensor is read here.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from engine.config import (
    DecoderConfig,
    DecoderKind,
    Manifest,
    Order,
    RolloutConfig,
    TextConfig,
    TransformerConfig,
    VideoConfig,
)
from engine.errors import StartError

MANIFEST_NAME = "manifest.json"
PARTIAL_NAME = ".hiar-download"
"""While a folder holds this, not all of a model has arrived in it; ``hiar-download`` makes and removes it."""

Section = TypeVar("Section")

_WAN_LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WAN_LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Per-channel latent statistics of the Wan 2.1 VAE (spec section 5.1)."""

WAN_DECODER = DecoderConfig(kind=DecoderKind.WAN, latents_mean=_WAN_LATENTS_MEAN, latents_std=_WAN_LATENTS_STD)
TAEHV_DECODER = DecoderConfig(kind=DecoderKind.TINY)
TAEHV_FILES = ("taew2_1.safetensors", "taew2_1.pth")
"""The tiny decoder for latents of the Wan 2.1 VAE, as its authors name it (``vae`` spec section 5.5)."""

UMT5_XXL = TextConfig(
    vocab_size=256384,
    dim=4096,
    dim_attn=4096,
    dim_ffn=10240,
    num_heads=64,
    num_layers=24,
    num_buckets=32,
    text_len=512,
)
WAN_VIDEO = VideoConfig(sizes=((832, 480), (480, 832), (480, 480)), fps=16)


def read_manifest(path: Path, decoder: str | None = None) -> Manifest:
    """Describe the model in folder ``path``, with the decoder of kind ``decoder``; None is the model's own.

    Raises:
        StartError: no such folder, one whose download has not ended, no layout recognised, a key unknown or missing,
            sizes that do not fit, or a decoder that is not there.
    """
    if not path.is_dir():
        raise StartError(f"model folder {path} does not exist; hiar-download makes one")
    if (path / PARTIAL_NAME).exists():
        raise StartError(
            f"{path} is incomplete: a download into it is under way or was cut off; wait for its end, "
            "or run the same hiar-download command again"
        )
    manifest = _read_layout(path)
    return manifest if decoder is None else _with_decoder(manifest, decoder, path)


def _read_layout(path: Path) -> Manifest:
    if (path / MANIFEST_NAME).is_file():
        return _read_ours(path)
    if (path / "transformer" / "config.json").is_file():
        return _read_diffusers(path)
    if (path / "config.json").is_file():
        return _read_original(path)
    raise StartError(
        f"{path} holds no model: needed {MANIFEST_NAME}, transformer/config.json (diffusers layout) "
        "or config.json beside hiar.pt (original layout)"
    )


def _with_decoder(manifest: Manifest, kind: str, folder: Path) -> Manifest:
    own = manifest.decoder
    assert own is not None, "a folder's model has a decoder"
    if own.kind == kind:
        return manifest
    if own.kind != DecoderKind.WAN or kind != DecoderKind.TINY:
        raise StartError(f"{folder} has no {kind} decoder; it has {own.kind} only")
    file = next((folder / name for name in TAEHV_FILES if (folder / name).is_file()), None)
    if file is None:
        raise StartError(f"{folder} has no {kind} decoder; put {' or '.join(TAEHV_FILES)} there, or use {own.kind}")
    return dataclasses.replace(manifest, decoder=TAEHV_DECODER, decoder_file=file)


def _read_ours(folder: Path) -> Manifest:
    source = folder / MANIFEST_NAME
    content = _read_json(source)
    sections: dict[str, Any] = {
        "transformer": _section(TransformerConfig, content, "transformer", source),
        "rollout": _section(RolloutConfig, content, "rollout", source),
        "video": _section(VideoConfig, content, "video", source),
        "decoder": _section(DecoderConfig, content, "decoder", source),
        "text": _section(TextConfig, content, "text", source),
    }
    files = content.pop("files", {})
    content.pop("training", None)
    for part in ("transformer", "decoder", "text", "tokenizer"):
        if not isinstance(files, dict) or part not in files:
            raise StartError(f"{source}: files.{part} is missing")
        sections[f"{part}_file"] = _inside(folder, files[part], source)
    return _checked(Manifest, {**content, **sections}, source)


def _read_diffusers(folder: Path) -> Manifest:
    source = folder / "transformer" / "config.json"
    config = _read_json(source)
    try:
        transformer = TransformerConfig(
            dim=config["num_attention_heads"] * config["attention_head_dim"],
            ffn_dim=config["ffn_dim"],
            num_heads=config["num_attention_heads"],
            num_layers=config["num_layers"],
            text_len=UMT5_XXL.text_len,
            in_dim=config["in_channels"],
            **_wan_defaults(config),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {error}") from error
    return Manifest(
        name=folder.name,
        description="diffusers layout",
        transformer=transformer,
        rollout=RolloutConfig(),
        video=WAN_VIDEO,
        transformer_file=folder / "transformer",
        decoder=WAN_DECODER,
        decoder_file=folder / "vae",
        text=UMT5_XXL,
        text_file=folder / "text_encoder",
        tokenizer_file=folder / "tokenizer",
        dtype="bfloat16",
    )


def _read_original(folder: Path) -> Manifest:
    source = folder / "config.json"
    config = _read_json(source)
    try:
        transformer = TransformerConfig(
            **{key: config[key] for key in ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "in_dim")},
            **_wan_defaults(config),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {error}") from error
    return Manifest(
        name=folder.name,
        description="original Wan layout",
        transformer=transformer,
        rollout=RolloutConfig(),
        video=WAN_VIDEO,
        transformer_file=_student_file(folder),
        decoder=WAN_DECODER,
        decoder_file=folder / "Wan2.1_VAE.pth",
        text=UMT5_XXL,
        text_file=folder / "models_t5_umt5-xxl-enc-bf16.pth",
        tokenizer_file=folder / "google" / "umt5-xxl",
        dtype="bfloat16",
    )


def _wan_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What both layouts leave out where it is as Wan's constructor has it."""
    defaults = {"text_dim": UMT5_XXL.dim, "freq_dim": 256, "eps": 1e-6}
    return {key: config.get(key, default) for key, default in defaults.items()}


def _student_file(folder: Path) -> Path:
    """The distilled transformer: ``hiar.pt``, a Self-Forcing ``.pt``, or a safetensors export."""
    kinds = ("*.pt", "*.safetensors.index.json", "*.safetensors")
    others = [file for kind in kinds for file in sorted(folder.glob(kind))]
    preferred = [folder / "hiar.pt", *others]
    found = next((file for file in preferred if file.is_file() and file.name not in TAEHV_FILES), None)
    if found is None:
        raise StartError(f"{folder} holds no transformer: needed hiar.pt, another .pt, or .safetensors")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise StartError(f"{path} holds no JSON object")
    return content


def _section(kind: type[Section], content: dict[str, Any], name: str, source: Path) -> Section:
    if name not in content:
        raise StartError(f"{source}: section {name!r} is missing")
    values = content.pop(name)
    if not isinstance(values, dict):
        raise StartError(f"{source}: section {name!r} is no object")
    return _checked(kind, values, source, name)


def _checked(kind: type[Section], values: Mapping[str, Any], source: Path, section: str = "manifest") -> Section:
    """Build a config from JSON values: lists become tuples, words become enums, unknown keys are refused."""
    assert dataclasses.is_dataclass(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise StartError(f"{source}: {section} has unknown keys {', '.join(unknown)}")
    try:
        return kind(**{key: _convert(key, value) for key, value in values.items()})
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {section}: {error}") from error


def _convert(key: str, value: Any) -> Any:
    if key == "kind":
        return DecoderKind(value)
    if key == "order":
        return Order(value)
    if isinstance(value, list):
        return tuple(_convert("", item) for item in value)
    return value


def _inside(folder: Path, name: Any, source: Path) -> Path:
    """A file the manifest names; it must stay inside the model's folder."""
    if not isinstance(name, str) or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise StartError(f"{source}: file {name!r} is outside the model's folder")
    return folder / name
