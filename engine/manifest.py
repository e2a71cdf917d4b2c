"""Reading a model folder: what it holds, by its own manifest or by the layout people already have.

Three layouts: ours (``manifest.json``), diffusers (``transformer/config.json`` beside ``vae/`` and ``text_encoder/``)
and original (``config.json`` of a WanModel beside a student such as ``hiar.pt``, the Wan VAE and UMT5 files). Ours has
its roll-out; of the others' a preset does. A model that has the Wan VAE may have the tiny decoder ``taew2_1`` beside
it. Opens small JSON files only; no tensor is read here.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engine.config import (
    DecoderConfig,
    DecoderKind,
    EncoderConfig,
    EncoderKind,
    Lora,
    Manifest,
    RolloutConfig,
    TextConfig,
    TransformerConfig,
    VideoConfig,
)
from engine.errors import StartError, unread
from engine.json_sections import checked, read_json, take_section
from engine.law.presets import NO_CHANGES, Layout, RolloutChanges
from engine.students import PRESET_NAME, Choice, Student, find_student, preset_named

MANIFEST_NAME = "manifest.json"
PARTIAL_NAME = ".hiar-download"
"""While a folder holds this, not all of a model has arrived in it; ``hiar-download`` makes and removes it."""

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
WAN_ENCODER = EncoderConfig(kind=EncoderKind.WAN, sizes=WAN_DECODER)
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
WAN_1_3B = TransformerConfig(
    dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=UMT5_XXL.dim, text_len=UMT5_XXL.text_len
)
"""Of Wan2.1-T2V-1.3B, from which the models of all presets were made (spec section 1.1)."""
WAN_VIDEO = VideoConfig(sizes=((832, 480), (480, 832), (480, 480)), fps=16)


def read_manifest(
    path: Path,
    decoder: str | None = None,
    *,
    preset: str | None = None,
    overrides: RolloutChanges = NO_CHANGES,
    loras: tuple[Lora, ...] = (),
) -> Manifest:
    """Describe the model in folder ``path``.

    Args:
        path: the folder.
        decoder: the kind to take; None is the model's own.
        preset: the name of the one that the model is of; None is what the folder tells.
        overrides: what to take in place of its roll-out's own values.
        loras: to be merged behind the preset's own.

    Raises:
        StartError: no such folder, one that may not be read or whose download has not ended, no layout recognised, a
            roll-out that nothing tells or that does not fit the files, a key unknown or missing, sizes that do not fit,
            or a decoder or LoRA that is not there.
    """
    try:
        _require_open(path)
        return _read_manifest(path, decoder, preset, overrides, loras)
    except OSError as error:  # of a folder below, or of one above that may not be entered
        raise StartError(f"{error.filename or path} cannot be read: {unread(error)}") from error


def _require_open(path: Path) -> None:
    """Raise ``StartError`` unless this is a folder that can be listed and entered, and ``OSError`` if it hides."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise StartError(f"model folder {path} does not exist; hiar-download makes one") from None
    if not path.is_dir():
        raise StartError(f"model {path} is a file; give the folder that it lies in")
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        raise StartError(f"model folder {path} cannot be read: {unread(PermissionError())}")


def _read_manifest(
    path: Path, decoder: str | None, preset: str | None, overrides: RolloutChanges, loras: tuple[Lora, ...]
) -> Manifest:
    if (path / PARTIAL_NAME).exists():
        raise StartError(
            f"{path} is incomplete: a download into it is under way or was cut off; wait for its end, "
            "or run the same hiar-download command again"
        )
    manifest = _changed(_read_layout(path, preset), overrides, loras)
    return manifest if decoder is None else _with_decoder(manifest, decoder, path)


def published_manifest(preset: str, overrides: RolloutChanges = NO_CHANGES, decoder: str | None = None) -> Manifest:
    """Describe the model that ``hiar-download`` would make of a preset, before it is there; no file is read.

    Raises:
        StartError: there is no such preset, a change does not fit it, or its decoder is of no such kind.
    """
    row = preset_named(preset)
    folder = Path(preset)
    student = Student(
        choice=Choice(preset=row, rollout=row.rollout), file=folder / row.file, key=row.transformer_key, loras=()
    )
    manifest = _changed(_of_layout(folder, row.layout, WAN_1_3B, student), overrides, ())
    return _with_tiny(manifest, folder / TAEHV_FILES[0]) if decoder == DecoderKind.TINY else manifest


def _changed(manifest: Manifest, overrides: RolloutChanges, loras: tuple[Lora, ...]) -> Manifest:
    missing = [str(lora.file) for lora in loras if not lora.file.is_file()]
    if missing:
        raise StartError(f"--lora names {', '.join(missing)}, which is no file")
    try:
        rollout = overrides.applied(manifest.rollout)
        return dataclasses.replace(manifest, rollout=rollout, loras=(*manifest.loras, *loras))
    except ValueError as error:
        whose = manifest.name if manifest.preset is None else f"preset {manifest.preset}"
        why = str(error).removeprefix("self.")
        raise StartError(f"{overrides} does not go with the roll-out of {whose}: {why}") from error


def _read_layout(path: Path, preset: str | None) -> Manifest:
    if (path / MANIFEST_NAME).is_file():
        other = f"leave --preset {preset} out" if preset is not None else f"remove {PRESET_NAME}"
        if preset is not None or (path / PRESET_NAME).exists():
            raise StartError(f"{path / MANIFEST_NAME} tells the model's own roll-out; {other}")
        return _read_ours(path)
    if (path / "transformer" / "config.json").is_file():
        return _read_diffusers(path, preset)
    if (path / "config.json").is_file():
        return _read_original(path, preset)
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
    return _with_tiny(manifest, file)


def _with_tiny(manifest: Manifest, file: Path) -> Manifest:
    return dataclasses.replace(manifest, decoder=TAEHV_DECODER, decoder_file=file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own:
    """What our manifest says beside its sections and files."""

    name: str
    description: str = ""
    transformer_key: str | None = None
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OwnEncoder:
    """The encoder in our manifest."""

    kind: EncoderKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OwnLora:
    """A LoRA in our manifest."""

    file: str
    scale: float = 1.0
    key: str | None = None
    alpha: float | None = None


def _read_ours(folder: Path) -> Manifest:
    source = folder / MANIFEST_NAME
    content = read_json(source)
    sections: dict[str, Any] = {
        "transformer": take_section(TransformerConfig, content, "transformer", source),
        "rollout": take_section(RolloutConfig, content, "rollout", source),
        "video": take_section(VideoConfig, content, "video", source),
        "decoder": take_section(DecoderConfig, content, "decoder", source),
        "text": take_section(TextConfig, content, "text", source),
    }
    kind = checked(_OwnEncoder, content.pop("encoder"), source, "encoder").kind if "encoder" in content else None
    files, loras = content.pop("files", {}), content.pop("loras", [])
    content.pop("training", None)
    for part in ("transformer", "decoder", "text", "tokenizer"):
        if not isinstance(files, dict) or part not in files:
            raise StartError(f"{source}: files.{part} is missing")
        sections[f"{part}_file"] = _inside(folder, files[part], source)
    if kind is not None:
        sections["encoder"] = EncoderConfig(kind=kind, sizes=sections["decoder"])
        sections["encoder_file"] = _inside(folder, files.get("encoder", files["decoder"]), source)
    if not isinstance(loras, list) or not all(isinstance(lora, dict) for lora in loras):
        raise StartError(f"{source}: loras is no list of objects")
    sections["loras"] = tuple(_own_lora(folder, lora, source) for lora in loras)
    own = checked(_Own, content, source, "manifest")
    try:
        return Manifest(**vars(own), **sections)
    except ValueError as error:
        raise StartError(f"{source}: manifest: {error}") from error


def _own_lora(folder: Path, values: dict[str, Any], source: Path) -> Lora:
    lora = checked(_OwnLora, values, source, "loras")
    try:
        return Lora(file=_inside(folder, lora.file, source), scale=lora.scale, key=lora.key, alpha=lora.alpha)
    except ValueError as error:
        raise StartError(f"{source}: loras: {error}") from error


def _read_diffusers(folder: Path, preset: str | None) -> Manifest:
    source = folder / "transformer" / "config.json"
    config = read_json(source)
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
    except KeyError as error:
        raise StartError(f"{source} has no {error}; is it the config of a Wan model?") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {error}") from error
    student = find_student(folder, Layout.DIFFUSERS, preset)
    return _of_layout(folder, Layout.DIFFUSERS, transformer, student)


def _read_original(folder: Path, preset: str | None) -> Manifest:
    source = folder / "config.json"
    config = read_json(source)
    try:
        transformer = TransformerConfig(
            **{key: config[key] for key in ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "in_dim")},
            **_wan_defaults(config),
        )
    except KeyError as error:
        raise StartError(f"{source} has no {error}; is it the config of a Wan model?") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise StartError(f"{source}: {error}") from error
    student = find_student(folder, Layout.ORIGINAL, preset)
    return _of_layout(folder, Layout.ORIGINAL, transformer, student)


_PARTS = {
    Layout.ORIGINAL: ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"),
    Layout.DIFFUSERS: ("vae", "text_encoder", "tokenizer"),
}
"""Decoder, text encoder and tokenizer in the layouts that people have."""


def _of_layout(folder: Path, layout: Layout, transformer: TransformerConfig, student: Student) -> Manifest:
    decoder, text, tokenizer = (folder / part for part in _PARTS[layout])
    preset = student.choice.preset
    return Manifest(
        name=folder.name,
        description=f"{preset.title}, {layout} layout",
        preset=preset.name,
        transformer=transformer,
        rollout=student.choice.rollout,
        video=WAN_VIDEO,
        transformer_file=student.file,
        transformer_key=student.key,
        loras=student.loras,
        decoder=WAN_DECODER,
        decoder_file=decoder,
        encoder=WAN_ENCODER,
        encoder_file=decoder,
        text=UMT5_XXL,
        text_file=text,
        tokenizer_file=tokenizer,
        dtype="bfloat16",
    )


def _wan_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What both layouts leave out where it is as Wan's constructor has it."""
    defaults = {"text_dim": UMT5_XXL.dim, "freq_dim": 256, "eps": 1e-6}
    return {key: config.get(key, default) for key, default in defaults.items()}


def _inside(folder: Path, name: Any, source: Path) -> Path:
    """A file the manifest names; its name must stay inside the model's folder.

    What lies there may be a link to elsewhere, as in the hub's own cache.
    """
    path = PurePosixPath(name) if isinstance(name, str) and name else None
    if path is None or path.is_absolute() or ".." in path.parts:
        raise StartError(f"{source}: file {name!r} is outside the model's folder")
    return folder / path
