"""The model that is started, as far as installed packages allow, and what is asked of it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.gpu.smoke.apart import missing
from engine import EngineConfig, Manifest, Output, Pace, PromptAt, VideoRequest, read_manifest
from engine.config import LATENT_STRIDE_PX
from engine.law.schedule import blocks_for_frames
from engine.stage.noise import KeyedNoise

PROMPT = "a red fox runs through fresh snow"
SEED = 7
VIDEO_S = 10.0
LOST_VIDEO_S = 30.0
"""Length of the video whose worker is killed: too long to be made before that."""
COMPARED_BLOCKS = 9
"""Blocks 0 .. 8: windows fill, and the last ones have lost their first blocks."""
ENCODER_PACKAGES = ("av",)
TEXT_PACKAGES = ("transformers", "tokenizers", "ftfy")
RECOVERY_GRACE_S = 600.0
START_SHARE = 0.95
"""Of the time for a start: what the engine gives its workers, so that it can still say what was wrong."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine's settings and what they leave out."""

    config: EngineConfig
    without: tuple[str, ...]
    """What the engine runs without, for want of packages."""

    @property
    def manifest(self) -> Manifest:
        """The model."""
        return self.config.manifest

    @property
    def makes_pictures(self) -> bool:
        """Whether videos can be asked for as fragments."""
        return self.manifest.decoder is not None

    @property
    def num_frames(self) -> int:
        """Of the video that is asked for."""
        return int(VIDEO_S * self.manifest.video.fps)

    @property
    def num_blocks(self) -> int:
        """Of the video that is asked for."""
        return blocks_for_frames(self.manifest.rollout, self.num_frames)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """F, C, Y, X of a block of the default size."""
        return latent_shape(self.manifest)

    def request(self, output: Output, seconds: float = VIDEO_S) -> VideoRequest:
        """One video of the default size, as fast as it can be made."""
        width_px, height_px = self.manifest.video.sizes[0]
        return VideoRequest(
            prompts=(PromptAt(at_s=0, text=PROMPT),),
            width_px=width_px,
            height_px=height_px,
            fps=self.manifest.video.fps,
            seconds=seconds,
            seed=SEED,
            pace=Pace.FAST,
            output=output,
        )


def subject_of(folder: Path, devices: tuple[str, ...], start_s: float, scratch: Path) -> Subject:
    """The settings of an engine for the model in ``folder``: one video at a time, everything else by default.

    It gives up a start before ``start_s`` have passed.
    Without the packages of the encoder it stops at latents; without those of the text encoder its prompt is made up
    and its noise, the same keyed numbers, is read from a file in ``scratch``.

    Raises:
        StartError: the folder holds no model.
        ValueError: devices that make no sense.
    """
    manifest, without, recording = read_manifest(folder), [], None
    if absent := missing(ENCODER_PACKAGES):
        manifest = replace(manifest, decoder=None, decoder_file=None)
        without.append(f"the decoder and the encoder, for want of {', '.join(absent)}")
    if absent := missing(TEXT_PACKAGES):
        recording = scratch / "recording.safetensors"
        _record(manifest, recording)
        manifest = replace(manifest, text=None, text_file=None, tokenizer_file=None)
        without.append(f"the text encoder, for want of {', '.join(absent)}")
    config = EngineConfig(
        manifest=manifest,
        devices=devices,
        max_videos=1,
        start_timeout_s=START_SHARE * start_s,
        recovery_grace_s=RECOVERY_GRACE_S,
        recording_file=recording,
    )
    return Subject(config=config, without=tuple(without))


def latent_shape(manifest: Manifest) -> tuple[int, int, int, int]:
    """F, C, Y, X of a block of the default size."""
    width_px, height_px = manifest.video.sizes[0]
    size = (height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX)
    return (manifest.rollout.latent_frames_per_block, manifest.transformer.in_dim, *size)


def _record(manifest: Manifest, path: Path) -> None:
    """Keyed noise of enough blocks, and an embedding of random rows, as the engine reads recordings."""
    from safetensors.torch import save_file  # noqa: PLC0415 - needed here only

    noise, shape = KeyedNoise(torch.device("cpu")), latent_shape(manifest)
    rows, rollout = manifest.transformer, manifest.rollout
    count = blocks_for_frames(rollout, int(LOST_VIDEO_S * manifest.video.fps))
    names = ["initial_noise", *(f"renoise.{stage}" for stage in range(rollout.num_stages - 1))]
    tables = {
        name: torch.cat([noise(SEED, block, stage, shape) for block in range(count)])
        for stage, name in enumerate(names)
    }
    context_TX = torch.randn(rows.text_len, rows.text_dim, generator=torch.Generator().manual_seed(SEED))
    context_TX[rows.text_len // 8 :] = 0
    save_file({**tables, "context": context_TX}, path)
