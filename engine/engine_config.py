"""How the engine runs a model: frozen values, checked when they are made.

Knows no file, no tensor and no process.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engine.config import Manifest, require

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


def no_such_gpu(device: str, num_gpus: int) -> str:
    """What is said where a device is asked for that is beyond the GPUs of a machine."""
    if num_gpus == 0:
        return no_gpu(device)
    return f"device {device} does not exist; this machine has {num_gpus} CUDA device{'s' * (num_gpus > 1)}"


def no_gpu(device: str) -> str:
    """What is said where a device is asked for on a machine without a GPU."""
    return f"device {device} was asked for, but torch finds no CUDA device; use --devices cpu"


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
    """A failure at one denoise pass: once in the life of a worker, or for ``RAISE`` whenever that pass is run."""

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
    num_decoder_units: int = 1
    """Into how many pieces of equal length the decoder may be cut."""
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Check lengths."""
        require(self.pass_s > 0, f"{self.pass_s=} is not positive")
        require(self.decode_s >= 0, f"{self.decode_s=} is negative")
        require(self.num_decoder_units >= 1, f"{self.num_decoder_units=} is below 1")


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
class EngineOptions:
    """How the engine runs, whatever its model is."""

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
    pause_hold_s: float = 60.0
    """How long a paused video keeps its pages and its place; then it sleeps in its log."""
    pause_limit_s: float = 3600.0
    """After which a paused video ends that nobody resumes."""
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
    """Recorded noise and prompt embeddings to use in place of keyed noise and the text encoder (parity runs)."""
    recording_first_frame: int = 0
    """The latent frame that its first rows of noise are for."""
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
        for name in ("keep_s", "pause_hold_s"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} is negative")
        for name in ("lead_target_s", "start_timeout_s", "stage_timeout_s", "recovery_grace_s", "pause_limit_s"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)} is not positive")

    @property
    def on_gpu(self) -> bool:
        """Whether workers run on GPUs."""
        return self.devices[0] != "cpu"


@dataclass(frozen=True, kw_only=True)
class EngineConfig(EngineOptions):
    """How the engine runs a model."""

    manifest: Manifest

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
