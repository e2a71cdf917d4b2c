"""What a model is: frozen values, checked when they are made.

Knows no file, no tensor and no process. Sizes follow spec section 1.1 of the HiAR paper's reference model; nothing is
fixed to one checkpoint.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from pathlib import Path

LATENT_CHANNELS_DEFAULT = 16
LATENT_STRIDE_PX = 8
"""Pixels a latent pixel covers, along height and along width (spec section 1.2)."""
MAX_TIMESTEP = 1000
SIDE_STEP_PX = 16
"""Sides of a picture are multiples of this: a token covers so many pixels."""


class Order(StrEnum):
    """The order in which (stage, block) cells are run."""

    STEP_FIRST = "step_first"
    """HiAR: each stage keeps context at its own output noise level (paper, Algorithm 1)."""
    BLOCK_FIRST = "block_first"
    """Self-Forcing: one shared clean cache, all stages of a block before the next block."""


class Transition(StrEnum):
    """How a denoised block gets to the next noise level."""

    RE_NOISE = "re_noise"
    """Fresh noise on the clean prediction (SDE; spec section 3.4)."""
    ODE = "ode"
    """Along the predicted flow, without noise (the paper's Algorithm 1; spec section 3.5)."""


class SinkPositions(StrEnum):
    """Where sinks stand in time for the blocks that attend to them."""

    ABSOLUTE = "absolute"
    """Where they were made."""
    WINDOW = "window"
    """Right before the oldest other block of the window."""


class PromptEffect(StrEnum):
    """What a new prompt does to the context that was cached under the old one."""

    KEEP = "keep"
    """Nothing: it leaves with its window."""
    RE_ENCODE = "re_encode"
    """The window is encoded again, in one joint pass, but for the sinks (LongLive)."""
    RE_ENCODE_ALL = "re_encode_all"
    """The same without the old sinks: the oldest blocks of the window are the sinks from then on."""


class DecoderKind(StrEnum):
    """Which network turns latents into pixels."""

    WAN = "wan"
    TINY = "tiny"


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition``."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of the causal Wan transformer. Raises ``ValueError`` on sizes that do not fit together."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    text_dim: int
    text_len: int
    """Rows of a padded prompt embedding; the rows after the prompt are zero and are attended too."""
    freq_dim: int = 256
    in_dim: int = LATENT_CHANNELS_DEFAULT
    """Latent channels, in and out."""
    patch_px: int = 2
    """Latent pixels a token covers, along height and along width."""
    position_grid: tuple[int, int] | None = None
    """Rows and columns of a table of learned positions, which is added to embedded tokens; None is Wan's own form.

    Rotary positions tell tokens apart only by what they hold: in pure noise a small model cannot find the middle.
    """
    position_frames: int | None = None
    """Latent frames, whole blocks of them, in a table of learned positions in time; blocks after its end have those of
    its last block. None is Wan's own form."""
    predicts_clean: bool = False
    """Whether the last map predicts the clean block, from which the flow follows, and not the flow as Wan's does.

    A flow holds the noise, so every value of a token's patch has to pass through the layers; where a patch has about as
    many values as the model is wide, nothing is left for the picture (arXiv 2511.13720).
    """
    eps: float = 1e-6
    """What all norms add to a variance or a mean square."""

    def __post_init__(self) -> None:
        """Check that heads divide the width and that a head holds whole rotary pairs."""
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "patch_px"):
            size = getattr(self, name)
            require(size >= 1, f"{name}={size} is below 1")
        require(0 < self.eps < 1, f"{self.eps=} leaves 0..1")
        require(self.dim % self.num_heads == 0, f"{self.num_heads=} does not divide {self.dim=}")
        require(self.head_dim % 2 == 0, f"head width {self.head_dim} is odd")
        require(self.freq_dim % 2 == 0, f"{self.freq_dim=} is odd")
        require(self.position_grid is None or min(self.position_grid) >= 1, f"{self.position_grid=} is empty")
        require(self.position_frames is None or self.position_frames >= 1, f"{self.position_frames=} is empty")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """What a checkpoint was trained to do: its order, noise levels and context (spec sections 3 and 4).

    ``ValueError`` on what does not fit together.
    """

    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    """Nominal timesteps, one a stage; warped by the shift before use, unless they are raw."""
    raw_steps: bool = False
    """Whether ``denoising_steps`` are the timesteps themselves."""
    first_block_steps: tuple[int, ...] | None = None
    """Those of the first block that is denoised, where it has others; block-first only."""
    timestep_shift: float = 5.0
    latent_frames_per_block: int = 3
    first_block_latent_frames: int | None = None
    """Of block 0, where it has fewer: 1 for a video that begins with a picture."""
    window_latent_frames: int = 21
    """Latent frames a segment attends to, its own block included."""
    sink_latent_frames: int = 0
    """First latent frames that are never evicted; they count in the window."""
    sink_positions: SinkPositions = SinkPositions.ABSOLUTE
    context_timestep: int = 0
    """What the network is told of clean context; no noise is added for it (``checkpoints`` spec section 2)."""
    clean_context: bool = False
    """Step-first only: each stage's context is its clean prediction, and not the block at its output level."""
    transition: Transition = Transition.RE_NOISE
    order: Order = Order.STEP_FIRST
    block_first_blocks: int = 0
    """Step-first only: so many first blocks are finished before the others begin, and are clean context for them."""
    prompt_change: PromptEffect = PromptEffect.KEEP
    """Anything but ``keep`` is block-first only."""

    def __post_init__(self) -> None:
        """Check that the window is made of whole blocks and has room beside the sinks."""
        per_block, first = self.latent_frames_per_block, self.first_block_latent_frames
        require(per_block >= 1, f"{self.latent_frames_per_block=} is below 1")
        require(first is None or 1 <= first <= per_block, f"first_block_latent_frames={first} leaves 1..{per_block}")
        for name in ("denoising_steps", "first_block_steps"):
            _require_steps(name, getattr(self, name))
        shift = self.timestep_shift
        require(0 < shift < inf, f"timestep_shift={shift} is not positive")
        require(self.window_latent_frames % per_block == 0, f"{self.window_latent_frames=} splits a block")
        require(self.sink_latent_frames % per_block == 0, f"{self.sink_latent_frames=} splits a block")
        require(self.sink_latent_frames >= 0, f"{self.sink_latent_frames=} is negative")
        require(self.sink_blocks < self.window_blocks, "sinks leave no room for the own block")
        require(first is None or self.sink_blocks == 0, "sinks and a shorter first block exclude each other")
        require(0 <= self.context_timestep <= MAX_TIMESTEP, f"{self.context_timestep=} leaves 0..{MAX_TIMESTEP}")
        require(self.block_first_blocks >= 0, f"{self.block_first_blocks=} is negative")
        if self.order == Order.STEP_FIRST:
            require(self.first_block_steps is None, "first_block_steps needs the order block_first")
            require(self.prompt_change == PromptEffect.KEEP, f"{self.prompt_change} needs the order block_first")
        else:
            require(not self.clean_context, "clean_context is what block_first has anyway; leave it out")
            require(self.block_first_blocks == 0, "block_first_blocks needs the order step_first")

    @property
    def num_stages(self) -> int:
        """Denoising stages S: as many as the block of most steps passes."""
        return max(len(self.denoising_steps), len(self.first_block_steps or ()))

    @property
    def window_blocks(self) -> int:
        """Blocks a segment attends to, its own included."""
        return self.window_latent_frames // self.latent_frames_per_block

    @property
    def sink_blocks(self) -> int:
        """First blocks that are never evicted."""
        return self.sink_latent_frames // self.latent_frames_per_block


def _require_steps(name: str, steps: tuple[int, ...] | None) -> None:
    if steps is None:
        return
    require(len(steps) >= 1, f"{name} is empty: there is no denoising step")
    require(list(steps) == sorted(set(steps), reverse=True), f"{name}={steps} does not descend")
    require(all(0 < step <= MAX_TIMESTEP for step in steps), f"{name}={steps} leaves 1..{MAX_TIMESTEP}")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the network that turns latents into pixels (spec sections 5.1-5.4 and ``vae`` section 5)."""

    kind: DecoderKind
    latent_channels: int = LATENT_CHANNELS_DEFAULT
    dim: int = 96
    """Wan only: base width."""
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Wan only: width multipliers, from pixels to latents."""
    num_res_blocks: int = 2
    """Wan only: residual blocks a level of the encoder; the decoder has one more."""
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    """Wan only: which encoder levels halve time."""
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()
    """Wan only: per-channel statistics; ``latents * std + mean`` enters the decoder."""
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    """Tiny only: channels at latent resolution, x2, x4 and x8."""


class EncoderKind(StrEnum):
    """What turns pictures into latents."""

    WAN = "wan"
    """The other side of the Wan VAE."""
    TINY = "tiny"
    """The other side of TAEHV."""
    PATCHES = "patches"
    """One linear map, of the small model."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The network that turns pictures into the latents of a model."""

    kind: EncoderKind
    sizes: DecoderConfig
    """Of the network that it is the other side of."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Sizes of the UMT5 text encoder (spec section 5.5)."""

    vocab_size: int
    dim: int
    dim_attn: int
    dim_ffn: int
    num_heads: int
    num_layers: int
    num_buckets: int
    text_len: int


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """What a model can be asked for: picture sizes and rates."""

    sizes: tuple[tuple[int, int], ...]
    """Allowed (width_px, height_px); the first is the default."""
    fps: int = 16
    """Default playback rate, frames a second."""
    max_fps: int = 60

    def __post_init__(self) -> None:
        """Check that there is a size and that every size cuts into whole tokens."""
        require(len(self.sizes) >= 1, "a model must allow at least one size")
        for width_px, height_px in self.sizes:
            ok = all(side_px > 0 and side_px % SIDE_STEP_PX == 0 for side_px in (width_px, height_px))
            require(ok, f"size {width_px}x{height_px} is not a positive multiple of {SIDE_STEP_PX}")

    @property
    def size_names(self) -> list[str]:
        """The sizes as people write them (``832x480``); the first is the default."""
        return [f"{width_px}x{height_px}" for width_px, height_px in self.sizes]


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank changes of a transformer's weights, merged when it is loaded: W + scale * (alpha / rank) * B A."""

    file: Path
    scale: float = 1.0
    key: str | None = None
    """What holds the tensors in a trainer's file; None where there is one choice."""
    alpha: float | None = None
    """For a file that does not tell it; None is the rank."""

    def __post_init__(self) -> None:
        """Check that the scale is a number."""
        require(isfinite(self.scale), f"scale={self.scale} of {self.file} is no factor")
        require(self.alpha is None or isfinite(self.alpha), f"alpha={self.alpha} of {self.file} is no number")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One servable model: its parts, their files, and what it can be asked for."""

    name: str
    description: str = ""
    transformer: TransformerConfig
    rollout: RolloutConfig
    preset: str | None = None
    """The preset that the roll-out comes from; None for the model's own."""
    video: VideoConfig
    transformer_file: Path
    transformer_key: str | None = None
    """What holds the student in a trainer's file; None for the best there is."""
    loras: tuple[Lora, ...] = ()
    decoder: DecoderConfig | None = None
    """None only for roll-outs that stop at latents."""
    decoder_file: Path | None = None
    encoder: EncoderConfig | None = None
    """None for a model that starts from no picture."""
    encoder_file: Path | None = None
    text: TextConfig | None = None
    """None only when callers bring prompt embeddings."""
    text_file: Path | None = None
    tokenizer_file: Path | None = None
    dtype: str = "float32"
    """Type of weights and activations on a GPU, unless something else is asked for: ``float32`` or ``bfloat16``."""

    def __post_init__(self) -> None:
        """Check that learned positions in time end with a block."""
        frames, per_block = self.transformer.position_frames, self.rollout.latent_frames_per_block
        require(frames is None or frames % per_block == 0, f"transformer.position_frames={frames} splits a block")
        plain = self.rollout.first_block_latent_frames is None and self.rollout.prompt_change == PromptEffect.KEEP
        require(frames is None or plain, "transformer.position_frames needs blocks of one size, encoded one by one")
