"""Sizes of a model folder: those of the published 1.3B checkpoint, and the smallest that have the same files."""

from dataclasses import dataclass

from benchmarks.gpu.sizes import DRY, REAL
from engine.config import DecoderConfig, RolloutConfig, TextConfig, TransformerConfig, VideoConfig
from engine.manifest import UMT5_XXL, WAN_DECODER, WAN_VIDEO


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """All networks of one model."""

    transformer: TransformerConfig
    rollout: RolloutConfig
    decoder: DecoderConfig
    text: TextConfig
    video: VideoConfig
    needs_manifest: bool
    """Whether other sizes than the published ones must be told, in a ``manifest.json``."""


PUBLISHED = ModelSizes(
    transformer=REAL.transformer,
    rollout=REAL.rollout,
    decoder=WAN_DECODER,
    text=UMT5_XXL,
    video=WAN_VIDEO,
    needs_manifest=False,
)

MICRO = ModelSizes(
    transformer=DRY.transformer,
    rollout=DRY.rollout,
    decoder=DRY.decoders["Wan VAE"],
    text=TextConfig(
        vocab_size=128,
        dim=DRY.transformer.text_dim,
        dim_attn=64,
        dim_ffn=96,
        num_heads=4,
        num_layers=2,
        num_buckets=32,
        text_len=DRY.transformer.text_len,
    ),
    video=VideoConfig(sizes=(DRY.size_px,)),
    needs_manifest=True,
)

SIZES = {"real": PUBLISHED, "micro": MICRO}
