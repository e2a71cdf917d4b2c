"""What a model is and how an engine is set up: frozen values, checked when they are made.

Knows no file, no tensor and no process. Sizes follow spec section 1.1 of the HiAR paper's reference model; nothing is
fixed to one checkpoint.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

LATENT_CHANNELS_DEFAULT = 16
LATENT_STRIDE_PX = 8
"""Pixels a latent pixel covers, along height and along width (spec section 1.2)."""


class Order(StrEnum):
    """The order in which (stage, block) cells are run."""

    STEP_FIRST = "step_first"
    """HiAR: each stage keeps context at its own output noise level (paper, Algorithm 1)."""
    BLOCK_FIRST = "block_first"
    """Self-Forcing: one shared clean cache, all stages of a block before the next block."""


class DecoderKind(StrEnum):
    """Which network turns latents into pixels."""

    WAN = "wan"
    TINY = "tiny"


SIDE_STEP_PX = 16
"""Sides of a picture are multiples of this: a token covers so many pixels."""
MAX_MASTER_PORT = 65534
"""The port after it is used too."""
DTYPES = ("auto", "float32", "bfloat16")
"""Types that weights and activations can be asked to have; ``auto`` leaves it to model and device."""
NARROW_DTYPES = {"kv_dtype": ("auto", "fp8"), "linear_dtype": ("auto", "fp8"), "attention_dtype": ("auto", "int8")}
"""The same for what can have fewer bits, by the field of ``Precision``; ``auto`` is the type of activations."""


def is_device(name: str) -> bool:
    """Whether this names a device as a setting may: ``cpu`` or ``cuda:N``."""
    number = name.removeprefix("cuda:")
    return name == "cpu" or (number != name and number.isascii() and number.isdecimal())


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

    def __post_init__(self) -> None:
        """Check that heads divide the width and that a head holds whole rotary pairs."""
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "patch_px"):
            size = getattr(self, name)
            require(size >= 1, f"{name}={size} is below 1")
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
    """How blocks are denoised: the noise levels and the context window (spec sections 3 and 4)."""

    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    """Nominal timesteps, one a stage; warped by the shift before use."""
    timestep_shift: float = 5.0
    latent_frames_per_block: int = 3
    window_latent_frames: int = 21
    """Latent frames a segment attends to, its own block included."""
    sink_latent_frames: int = 0
    """First latent frames that are never evicted; they count in the window."""
    context_timestep: int = 0
    """Timestep of the clean cache pass. Only 0 (no noise on the context) has a defined meaning at inference."""
    order: Order = Order.STEP_FIRST

    def __post_init__(self) -> None:
        """Check that the window is made of whole blocks and has room beside the sinks."""
        per_block = self.latent_frames_per_block
        require(per_block >= 1, f"{self.latent_frames_per_block=} is below 1")
        require(len(self.denoising_steps) >= 1, "there is no denoising step")
        descending = list(self.denoising_steps) == sorted(set(self.denoising_steps), reverse=True)
        require(descending, f"{self.denoising_steps=} does not descend")
        in_range = all(0 < step <= 1000 for step in self.denoising_steps)
        require(in_range, f"{self.denoising_steps=} leaves 1..1000")
        require(self.window_latent_frames % per_block == 0, f"{self.window_latent_frames=} splits a block")
        require(self.sink_latent_frames % per_block == 0, f"{self.sink_latent_frames=} splits a block")
        require(self.sink_blocks < self.window_blocks, "sinks leave no room for the own block")
        require(self.context_timestep == 0, f"{self.context_timestep=}: only a clean context (0) is defined")

    @property
    def num_stages(self) -> int:
        """Denoising stages S."""
        return len(self.denoising_steps)

    @property
    def window_blocks(self) -> int:
        """Blocks a segment attends to, its own included."""
        return self.window_latent_frames // self.latent_frames_per_block

    @property
    def sink_blocks(self) -> int:
        """First blocks that are never evicted."""
        return self.sink_latent_frames // self.latent_frames_per_block


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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One servable model: its parts, their files, and what it can be asked for."""

    name: str
    description: str = ""
    transformer: TransformerConfig
    rollout: RolloutConfig
    video: VideoConfig
    transformer_file: Path
    decoder: DecoderConfig | None = None
    """None only for roll-outs that stop at latents."""
    decoder_file: Path | None = None
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


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where fewer bits are used than the model's own type has. Each changes the pictures, so none is on by itself."""

    kv_dtype: str = "auto"
    """Of the pages: ``auto`` (the type of activations) or ``fp8``, which about halves them."""
    linear_dtype: str = "auto"
    """Of the projections to queries, keys and values and of the feed-forward products of all layers but the first and
    the last: ``auto`` or ``fp8``."""
    attention_dtype: str = "auto"
    """Of the products of queries and keys: ``auto`` or ``int8``."""

    def __post_init__(self) -> None:
        """Check the words."""
        for name, words in NARROW_DTYPES.items():
            word = getattr(self, name)
            require(word in words, f"{name}={word!r} is neither {' nor '.join(map(repr, words))}")

    @property
    def fp8_pages(self) -> bool:
        """Whether pages are held in 8 bits."""
        return self.kv_dtype == "fp8"

    @property
    def fp8_linears(self) -> bool:
        """Whether those products are made in 8 bits."""
        return self.linear_dtype == "fp8"

    @property
    def int8_attention(self) -> bool:
        """Whether queries and keys are multiplied in 8 bits."""
        return self.attention_dtype == "int8"


class FaultKind(StrEnum):
    """What a rehearsed worker can be made to do."""

    OUT_OF_MEMORY = "oom"
    RAISE = "raise"
    NAN = "nan"
    HANG = "hang"
    EXIT = "exit"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure at one denoise pass, once in the life of a worker."""

    kind: FaultKind
    stage: int
    block: int
    seed: int
    """Of the video it strikes."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Passes that sleep in place of computing, and pictures that show frame numbers.

    Everything else is real: processes, tickets, hand-over, pages, encoder. It measures the schedule apart from the
    speed of the device, and lets tests read from a video what was made, lost or made twice.
    """

    pass_s: float
    """Length of a denoise pass and of a cache pass; a forward takes the sum of its passes."""
    decode_s: float = 0.0
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Check lengths."""
        require(self.pass_s > 0, f"{self.pass_s=} is not positive")
        require(self.decode_s >= 0, f"{self.decode_s=} is negative")


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The hosts that share one engine. Rank 0 has the front; the others lend it their devices."""

    num_nodes: int
    rank: int
    master_addr: str
    """Host of rank 0, as the others reach it."""
    master_port: int = 29500
    """Where the workers of all nodes find each other; the front talks to the other nodes at the next port."""

    def __post_init__(self) -> None:
        """Check ranks and ports."""
        require(self.num_nodes >= 2, f"{self.num_nodes=}: one node needs no others")
        require(0 <= self.rank < self.num_nodes, f"node rank {self.rank} leaves 0..{self.num_nodes - 1}")
        require(bool(self.master_addr), "there is no master address")
        require(1 <= self.master_port <= MAX_MASTER_PORT, f"{self.master_port=} leaves 1..{MAX_MASTER_PORT}")

    @property
    def control_port(self) -> int:
        """Where the front listens for other nodes."""
        return self.master_port + 1


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How much of a running video stays readable behind its newest block. None is no bound; without any, all stays."""

    num_blocks: int | None = None
    seconds: float | None = None
    num_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the engine runs a model."""

    manifest: Manifest
    devices: tuple[str, ...] = ("cpu",)
    """One worker a device of this host, in chain order: ``cpu`` or ``cuda:N``. ``cpu`` may be named several times."""
    nodes: Nodes | None = None
    """None for an engine on one host."""
    max_videos: int = 2
    """Videos of one chain that may hold pages at once; each worker's page pool is sized for them."""
    max_queue: int = 8
    """Videos that may wait for a place before more are refused."""
    max_segments: int | None = None
    """Segments of one forward. None: every stage at once on a GPU; 2 on a CPU, a denoise pass and the cache pass it
    needs, because a larger batch saves nothing there. 1 never fuses (parity runs)."""
    max_inflight_blocks: int | None = None
    """Block tickets that may be in one chain at once. None: enough to keep every worker busy, and on a GPU every
    stage of a worker; more would only make urgent blocks wait behind others."""
    precision: Precision = Precision()
    dtype: str = "auto"
    """Of weights and activations: ``float32``, ``bfloat16`` or ``auto``: the model's own on a GPU; float32 on a CPU, or
    bfloat16 where that alone has room."""
    text_device: str = "auto"
    """Where prompts are embedded: ``cpu``, a device of ``devices``, or ``auto``: a device with room for it, or else the
    host's memory."""
    lead_target_s: float = 3.0
    """A realtime video waits while it is this far ahead of its viewer."""
    backlog_limit_s: float = 30.0
    """A video waits while this much encoded video has not been taken by its reader."""
    keep: Keep = Keep(num_bytes=64 * 1024**2)
    """Of a running video, for those who join late or come back."""
    keep_endless: Keep = Keep(seconds=120.0, num_bytes=64 * 1024**2)
    """The same for one without an end, whose memory must not grow."""
    keep_s: float = 600.0
    """How long an ended video still answers."""
    kept_bytes: int = 256 * 1024**2
    """Of all ended videos together; beyond it the oldest are forgotten."""
    start_timeout_s: float = 600.0
    stage_timeout_s: float = 20.0
    """A worker that has work and makes no progress for this long is hung, and its group is replaced."""
    recovery_grace_s: float = 60.0
    """How long a video waits for a new worker group, and how long making its blocks again may take."""
    poison_pages: bool = False
    """Fill free pages with NaN so that a stale read shows (tests)."""
    num_threads: int | None = None
    """CPU threads of a worker; None leaves the choice to torch, or shares the cores among several CPU workers."""
    recording_file: Path | None = None
    """Recorded noise and prompt embedding to use in place of keyed noise and the text encoder (parity runs)."""
    rehearsal: Rehearsal | None = None
    """Sleep in place of computing (measuring the schedule, testing failures)."""

    def __post_init__(self) -> None:
        """Check devices and bounds."""
        require(len(self.devices) >= 1, "there is no device")
        for device in self.devices:
            require(is_device(device), f"device {device!r} is neither 'cpu' nor 'cuda:N'")
        gpus = [device for device in self.devices if device != "cpu"]
        require(len(gpus) in {0, len(self.devices)}, f"devices {','.join(self.devices)} mix CPU and GPU")
        require(len(set(gpus)) == len(gpus), f"devices {','.join(self.devices)} name a GPU twice")
        require(self.dtype in DTYPES, f"{self.dtype=} is none of {', '.join(DTYPES)}")
        places = {"auto", "cpu", *self.devices}
        require(self.text_device in places, f"--text-device {self.text_device} is none of {', '.join(sorted(places))}")
        require(self.max_videos >= 1, f"{self.max_videos=} is below 1")
        require(self.max_queue >= 0, f"{self.max_queue=} is below 0")
        in_flight = self.max_inflight_blocks
        require(in_flight is None or in_flight >= 1, f"{self.max_inflight_blocks=} is below 1")
        require(self.keep_s >= 0, f"keep_s={self.keep_s} is negative")
        for name in ("lead_target_s", "start_timeout_s", "stage_timeout_s", "recovery_grace_s"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)} is not positive")

    @property
    def on_gpu(self) -> bool:
        """Whether workers run on GPUs."""
        return self.devices[0] != "cpu"

    @property
    def dtype_name(self) -> str:
        """Type of weights and activations: ``float32`` or ``bfloat16``."""
        if self.dtype != "auto":
            return self.dtype
        return self.manifest.dtype if self.on_gpu else "float32"

    def inflight_limit(self, num_workers: int) -> int:
        """Block tickets that may be at once in a chain of so many workers."""
        if self.max_inflight_blocks is not None:
            return self.max_inflight_blocks
        return self.manifest.rollout.num_stages + 2 if self.on_gpu else num_workers + 1

    @property
    def segments_limit(self) -> int:
        """Segments of one forward."""
        if self.max_segments is not None:
            return self.max_segments
        return 2 * self.manifest.rollout.num_stages if self.on_gpu else 2
