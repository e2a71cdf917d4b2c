"""Presets: public checkpoints, where their files lie, and what each was trained to do.

A table and nothing else. It is written from the repositories' own code and configurations, and from model cards; no
released file was opened for it. ``docs/checkpoints.md`` tells what each row was compared with.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from engine.config import Order, PromptEffect, RolloutConfig, SinkPositions

UNKNOWN = "unknown"
"""A licence that nobody here has read."""


class Layout(StrEnum):
    """How a model's files are laid out in its folder."""

    ORIGINAL = "original"
    """A trainer's ``.pt`` beside the files of the Wan release."""
    DIFFUSERS = "diffusers"
    """``transformer/``, ``vae/``, ``text_encoder/`` and ``tokenizer/``."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a roll-out was read."""

    repository: str
    commit: str | None = None
    config: str | None = None


@dataclass(frozen=True, kw_only=True)
class PresetLora:
    """A LoRA that belongs to a checkpoint."""

    file: str
    """Its place in the repository and in the model's folder."""
    key: str | None = None
    """What holds its tensors in a trainer's file."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A public checkpoint: its files and its roll-out."""

    name: str
    title: str
    hub_id: str
    file: str
    """The student's place in the repository and in the model's folder; a pattern in the diffusers layout."""
    transformer_key: str | None = None
    """What its own repository takes of a trainer's file; None for the best there is."""
    loras: tuple[PresetLora, ...] = ()
    rollout: RolloutConfig
    base_hub_id: str = "Wan-AI/Wan2.1-T2V-1.3B"
    """What has the VAE, the text encoder, its tokenizer and, in the original layout, the sizes."""
    layout: Layout = Layout.ORIGINAL
    licence: str = UNKNOWN
    """Of the weights."""
    source: Source
    golden: str | None = None
    """The recorded roll-out of its repository's own loop; None where none was recorded."""
    must_be_named: bool = False
    """Whether its files are those of another preset, so that they do not tell it."""


@dataclass(frozen=True, kw_only=True)
class RolloutChanges:
    """What somebody wants in place of a roll-out's own values; None leaves one as it is."""

    denoising_steps: tuple[int, ...] | None = None
    timestep_shift: float | None = None
    window_latent_frames: int | None = None
    sink_latent_frames: int | None = None
    order: Order | None = None

    def applied(self, rollout: RolloutConfig) -> RolloutConfig:
        """The changed roll-out. Raises ``ValueError`` where that does not fit together."""
        return replace(rollout, **self._given)

    def __str__(self) -> str:
        """As on the command line, such as ``--steps 1000,500 --window 9``; empty where nothing changes."""
        return " ".join(f"{_FLAGS[name]} {_written(value)}" for name, value in self._given.items())

    @property
    def _given(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


NO_CHANGES = RolloutChanges()

_FLAGS = {
    "denoising_steps": "--steps",
    "timestep_shift": "--shift",
    "window_latent_frames": "--window",
    "sink_latent_frames": "--sink",
    "order": "--order",
}

BASE_FILES = {
    Layout.ORIGINAL: (
        "config.json",
        "Wan2.1_VAE.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
    ),
    Layout.DIFFUSERS: (
        "vae/config.json",
        "vae/*.safetensors",
        "text_encoder/*.json",
        "text_encoder/*.safetensors",
        "tokenizer/tokenizer.json",
    ),
}
"""What is taken from a preset's base, by names or patterns (``hiar`` spec section 2)."""

_EMA = "generator_ema"
_BLOCK_FIRST = RolloutConfig(order=Order.BLOCK_FIRST)
"""Of Self-Forcing and what followed it."""
_FRAMEWISE = replace(_BLOCK_FIRST, latent_frames_per_block=1)
_FOUR_STEPS = _BLOCK_FIRST.denoising_steps
_LONGLIVE = replace(_BLOCK_FIRST, window_latent_frames=12, sink_latent_frames=3, prompt_change=PromptEffect.RE_ENCODE)

_SELF_FORCING_HUB, _CAUSAL_FORCING_HUB = "gdhe17/Self-Forcing", "zhuhz22/Causal-Forcing"
_LONGLIVE_HUB = "Efficient-Large-Model/LongLive-1.3B"
_SELF_FORCING_CODE = Source(
    repository="guandeh17/Self-Forcing",
    commit="33593df3e81fa3ec10239271dd2c100facac6de1",
    config="configs/self_forcing_dmd.yaml",
)
_CAUSAL_FORCING_CODE = Source(
    repository="thu-ml/Causal-Forcing",
    commit="1fc7bbc19a503c1bce80ecef08158b20e702f386",
    config="configs/causal_forcing_dmd_chunkwise.yaml",
)
_LONGLIVE_CODE = Source(
    repository="NVlabs/LongLive",
    commit="e52d9ef6865d843282a6b5e9d46d03b35f88929d",
    config="configs/longlive_interactive_inference.yaml",
)
_LONGLIVE_LORAS = (PresetLora(file="models/lora.pt", key="generator_lora"),)

_TABLE = (
    Preset(
        name="hiar",
        title="HiAR",
        hub_id="jackyhate/HiAR",
        file="hiar.pt",  # without a key: its own loop takes the average where there is one
        rollout=RolloutConfig(),
        licence="MIT",
        source=Source(
            repository="Jacky-hate/HiAR",
            commit="da267d360e60ef6f3be6df42a9474f6166447529",
            config="configs/hiar.yaml",
        ),
        golden="hiar-options",
    ),
    Preset(
        name="self-forcing",
        title="Self-Forcing (DMD)",
        hub_id=_SELF_FORCING_HUB,
        file="checkpoints/self_forcing_dmd.pt",
        transformer_key=_EMA,
        rollout=_BLOCK_FIRST,
        licence="CC BY-NC-SA 4.0",
        source=_SELF_FORCING_CODE,
        golden="self-forcing",
    ),
    Preset(
        name="self-forcing-sid",
        title="Self-Forcing (SiD)",
        hub_id=_SELF_FORCING_HUB,
        file="checkpoints/self_forcing_sid.pt",
        transformer_key=_EMA,
        rollout=_BLOCK_FIRST,
        licence="CC BY-NC-SA 4.0",
        source=replace(_SELF_FORCING_CODE, config="configs/self_forcing_sid.yaml"),
    ),
    Preset(
        name="self-forcing-diffusers",
        title="Self-Forcing (DMD), diffusers layout",
        hub_id="wlsaidhi/SFWan2.1-T2V-1.3B-Diffusers",
        file="transformer/*.safetensors",
        rollout=_BLOCK_FIRST,
        base_hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        layout=Layout.DIFFUSERS,
        source=_SELF_FORCING_CODE,
    ),
    Preset(
        name="causal-forcing",
        title="Causal-Forcing, chunk-wise",
        hub_id=_CAUSAL_FORCING_HUB,
        file="chunkwise/causal_forcing.pt",
        transformer_key="generator",
        rollout=_BLOCK_FIRST,
        source=_CAUSAL_FORCING_CODE,
        golden="causal-forcing-chunkwise",
    ),
    Preset(
        name="causal-forcing-framewise",
        title="Causal-Forcing, frame-wise",
        hub_id=_CAUSAL_FORCING_HUB,
        file="framewise/causal_forcing.pt",
        transformer_key=_EMA,
        rollout=_FRAMEWISE,
        source=replace(_CAUSAL_FORCING_CODE, config="configs/causal_forcing_dmd_framewise.yaml"),
        golden="causal-forcing-framewise",
    ),
    Preset(
        name="causal-forcing-2step",
        title="Causal-Forcing++, two steps",
        hub_id=_CAUSAL_FORCING_HUB,
        file="causal-forcing++/framewise-2step.pt",
        transformer_key=_EMA,
        rollout=replace(_FRAMEWISE, denoising_steps=(1000, 500), first_block_steps=_FOUR_STEPS),
        source=replace(_CAUSAL_FORCING_CODE, config="configs/causal_forcing_dmd_framewise_2step.yaml"),
        golden="causal-forcing-plus-2step",
    ),
    Preset(
        name="causal-forcing-1step",
        title="Causal-Forcing++, one step",
        hub_id=_CAUSAL_FORCING_HUB,
        file="causal-forcing++/framewise-1step.pt",
        transformer_key=_EMA,
        rollout=replace(_FRAMEWISE, denoising_steps=(1000,), first_block_steps=_FOUR_STEPS),
        source=replace(_CAUSAL_FORCING_CODE, config="configs/causal_forcing_dmd_framewise_1step.yaml"),
        golden="causal-forcing-plus-1step",
    ),
    Preset(
        name="one-forcing",
        title="One-Forcing",
        hub_id="JiaqiFeng/OneForcing",
        file="checkpoints/one_forcing.pt",
        transformer_key="generator",
        rollout=replace(_FRAMEWISE, denoising_steps=(1000,)),
        source=Source(repository="Aurora-edu/One-Forcing", config="config.yaml"),
    ),
    Preset(
        name="longlive",
        title="LongLive",
        hub_id=_LONGLIVE_HUB,
        file="models/longlive_base.pt",
        transformer_key="generator",
        loras=_LONGLIVE_LORAS,
        rollout=_LONGLIVE,
        source=_LONGLIVE_CODE,
        golden="longlive",
    ),
    Preset(
        name="longlive-infinity",
        title="LongLive, positions relative to the window",
        hub_id=_LONGLIVE_HUB,
        file="models/longlive_base.pt",
        transformer_key="generator",
        loras=_LONGLIVE_LORAS,
        rollout=replace(_LONGLIVE, sink_positions=SinkPositions.WINDOW),
        source=replace(_LONGLIVE_CODE, config="configs/longlive_inference_infinity.yaml"),
        golden="longlive-infinity",
        must_be_named=True,
    ),
    Preset(
        name="causvid",
        title="CausVid",
        hub_id="tianweiy/CausVid",
        file="autoregressive_checkpoint/model.pt",
        transformer_key="generator",
        rollout=replace(_BLOCK_FIRST, denoising_steps=(1000, 757, 522), raw_steps=True, timestep_shift=8.0),
        source=Source(
            repository="tianweiy/CausVid",
            commit="ca2115039172dfa3a02deee1534408a09680f29f",
            config="configs/wan_causal_dmd.yaml",
        ),
        golden="causvid",
    ),
)

PRESETS = {preset.name: preset for preset in _TABLE}


def names_of_presets() -> str:
    """All of them, for a sentence."""
    return ", ".join(PRESETS)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
