"""The sizes that are measured: the 1.3B model at 832x480, and the smallest that take every code path (dry run)."""

from dataclasses import dataclass

from engine.config import LATENT_STRIDE_PX, DecoderConfig, DecoderKind, RolloutConfig, TransformerConfig
from engine.manifest import WAN_DECODER


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a run is made of."""

    transformer: TransformerConfig
    rollout: RolloutConfig
    size_px: tuple[int, int]
    """Width and height of the pictures."""
    decoders: dict[str, DecoderConfig]
    prompt_tokens: int
    copy_bytes: int
    flush_bytes: int
    """Written between two runs: more than the L2 cache holds, and long enough to hide the host's next launch."""
    matmul_side: int
    matmul_rows: tuple[int, ...]
    runs: int
    """Timed runs of each work."""
    warm_up_s: float

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """F, C, Y, X of a block."""
        width_px, height_px = self.size_px
        rows, columns = height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX
        return self.rollout.latent_frames_per_block, self.transformer.in_dim, rows, columns

    @property
    def block_tokens(self) -> int:
        """Tokens of a block, and of a page."""
        frames, _, rows, columns = self.latent_shape
        return frames * rows * columns // self.transformer.patch_px**2


REAL = Sizes(
    transformer=TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512),
    rollout=RolloutConfig(),
    size_px=(832, 480),
    decoders={"Wan VAE": WAN_DECODER, "tiny decoder": DecoderConfig(kind=DecoderKind.TINY)},
    prompt_tokens=64,
    copy_bytes=1 << 30,
    flush_bytes=1 << 29,
    matmul_side=8192,
    matmul_rows=(4680, 9360, 37440),
    runs=20,
    warm_up_s=0.2,
)

DRY = Sizes(
    transformer=TransformerConfig(dim=96, ffn_dim=256, num_heads=4, num_layers=3, text_dim=64, text_len=16),
    rollout=RolloutConfig(),
    size_px=(64, 32),
    decoders={
        "Wan VAE": DecoderConfig(
            kind=DecoderKind.WAN, dim=4, latents_mean=WAN_DECODER.latents_mean, latents_std=WAN_DECODER.latents_std
        ),
        "tiny decoder": DecoderConfig(kind=DecoderKind.TINY, widths=(16, 16, 16, 16)),
    },
    prompt_tokens=4,
    copy_bytes=1 << 20,
    flush_bytes=1 << 10,
    matmul_side=64,
    matmul_rows=(24, 48),
    runs=3,
    warm_up_s=0.0,
)
