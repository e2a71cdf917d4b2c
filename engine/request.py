"""What a caller asks for and what it gets back: frozen values that cross from the API into the engine and out.

Knows no HTTP field name and no tensor.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from engine.config import require
from engine.errors import StartError
from engine.law.placement import Plan


class Pace(StrEnum):
    """How far ahead of its viewer a video may run."""

    REALTIME = "realtime"
    """At most ``lead_target_s`` ahead of playback."""
    FAST = "fast"
    """As fast as what is left of the chain allows."""


class Quality(StrEnum):
    """How many bits the encoder spends."""

    DRAFT = "draft"
    STANDARD = "standard"
    HIGH = "high"


class Output(StrEnum):
    """What the last link of the chain returns."""

    FRAGMENTS = "fragments"
    """Encoded video: one fragment a block."""
    LATENTS = "latents"
    """The block's clean latents (parity runs and tests)."""


@dataclass(frozen=True, kw_only=True)
class TensorBytes:
    """A tensor as plain bytes, so that a process without torch can pass it on."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Frames as plain bytes: a picture is one frame. RGB, a byte a value, row by row, without padding."""

    num_frames: int
    width_px: int
    height_px: int
    data: bytes = field(repr=False)
    """Empty once nobody can need it any more."""

    def __post_init__(self) -> None:
        """Check that there is a frame, and all bytes or none."""
        require(self.num_frames >= 1, f"{self.num_frames=} is below 1")
        needed = 3 * self.num_frames * self.width_px * self.height_px
        require(len(self.data) in {0, needed}, f"{len(self.data)} bytes of pixels, needed {needed}")


@dataclass(frozen=True, kw_only=True)
class PromptAt:
    """A prompt and the playback time from which it holds."""

    at_s: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What a video goes on from: another one that has ended. Blocks and frames are counted from where the first video
    began that was ever continued.
    """

    source: str
    """Id of the video that it continues."""
    first_frame: int
    """The first that it shows. It may be in the middle of a block, where that one ended."""
    prompts: tuple[tuple[int, str], ...]
    """Blocks and the prompts that hold from there, of all before it; the first holds from block 0."""

    def __post_init__(self) -> None:
        """Check that it is behind something."""
        require(self.first_frame > 0, f"{self.first_frame=} continues nothing")
        require(self.prompts[:1] != () and self.prompts[0][0] == 0, "no prompt holds from block 0")


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """One video to generate. Raises ``ValueError`` on values no model could serve."""

    prompts: tuple[PromptAt, ...]
    """In order of time; the first holds from 0."""
    width_px: int
    height_px: int
    fps: int
    seconds: float | None = None
    """Length of the video; None is endless."""
    is_cut: bool = False
    """An endless video was asked for; ``seconds`` is the longest that is allowed."""
    seed: int = 0
    """0 .. 2**64 - 1."""
    pace: Pace = Pace.REALTIME
    quality: Quality = Quality.STANDARD
    priority: int = 0
    """Higher classes are served first; videos of one class share by deadline."""
    output: Output = Output.FRAGMENTS
    owner: str = ""
    """Who asked. The engine does not look at it; it is here so that it lives as long as the video."""
    initial: tuple[TensorBytes, ...] = ()
    """Latents of the first blocks, which are given, a tensor [F, C, Y, X] each: the video goes on from them."""
    start: Pixels | None = None
    """A picture or a clip, of the video's size and rate, that it begins with; becomes ``initial`` before it starts."""
    continues: Continuation | None = None
    """What it goes on from; None begins anew."""
    remixed_from: str | None = None
    """Id of the video that this is another version of. For whoever asks about it; changes nothing."""

    def __post_init__(self) -> None:
        """Check order and ranges."""
        require(len(self.prompts) >= 1, "there is no prompt")
        require(self.prompts[0].at_s == 0, f"the first prompt starts at {self.prompts[0].at_s} s, not at 0")
        starts = [prompt.at_s for prompt in self.prompts]
        require(starts == sorted(set(starts)), f"prompt times {starts} do not ascend")
        require(0 <= self.seed < 2**64, f"{self.seed=} leaves 0..2**64-1")
        require(self.fps >= 1, f"{self.fps=} is below 1")
        require(self.start is None or not self.initial, "there are initial latents and a picture to start from")
        require(self.seconds is None or self.seconds > 0, f"{self.seconds=} is not positive")


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """One encoded block: a ``moof`` and its ``mdat``; or the block's latents for ``Output.LATENTS``."""

    block: int
    data: bytes
    num_frames: int
    start_s: float
    """Playback time of its first frame."""
    duration_s: float


class EndReason(StrEnum):
    """Why a video ended without an error."""

    COMPLETED = "completed"
    LIMIT = "limit"
    """An endless one reached the longest video of the server."""
    CANCELLED = "cancelled"
    DRAIN = "drain"
    CLIENT_DISCONNECT = "client_disconnect"
    """Its last reader left, and no other came in time."""
    SLOW_CLIENT = "slow_client"
    """Its last reader took nothing for too long."""
    PAUSE_LIMIT = "pause_limit"
    """It was paused, and nobody resumed it in time."""
    TIMEOUT = "timeout"
    """Its caller waited for the first block for too long."""
    INTERNAL_ERROR = "internal_error"
    """The answer to its last reader broke by a bug."""


class EngineState(StrEnum):
    """Life of the engine as a whole."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Dtypes:
    """The types of numbers in use: ``float32``, ``bfloat16``, ``fp8`` (e4m3) or ``int8``."""

    activations: str
    """And weights, where nothing else is said."""
    pages: str
    linears: str
    """Of queries, keys and values and of the feed-forward products, but in the first and the last layer."""
    attention: str
    """Of the products of queries and keys."""


@dataclass(frozen=True, kw_only=True)
class WorkerMemoryFacts:
    """What a worker holds: as planned before it started, and as found when it was ready. Bytes by item."""

    rank: int
    device: str
    planned: tuple[tuple[str, int], ...]
    measured: tuple[tuple[str, int], ...]
    """Only what can be told apart."""
    planned_bytes: int
    """In all, with what only blocks take."""
    measured_bytes: int
    """In all, before the first block."""


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What a ready engine says about itself."""

    model: str
    device_names: tuple[str, ...]
    plan: Plan
    """What each worker runs, and what that is predicted to cost."""
    frames_per_s: float
    """Predicted rate of all chains together, at the default size."""
    num_pages: int
    """Of all workers."""
    page_bytes: int
    attention: str
    """Name of the attention implementation in use."""
    dtypes: Dtypes
    decoder: str
    encoder: str
    codecs: str
    """RFC 6381 string of the default size, for players (``avc1.PPCCLL``)."""
    takes_pictures: bool = False
    """Whether a video can start from a picture or a clip."""
    memory: tuple[WorkerMemoryFacts, ...] = ()
    """By rank; empty where no plan was made."""


@dataclass(frozen=True, kw_only=True)
class EngineLoad:
    """How busy the engine is now."""

    running: int
    waiting: int
    readers: int
    """Of all videos together."""
    slots: int
    pages_used: int
    """As the workers' own pools count them."""
    num_pages: int
    restarts: int
    """Worker groups that were lost and replaced."""
    blocks_buffered: int
    """Encoded blocks that wait for their readers."""


@dataclass(frozen=True, kw_only=True)
class WorkerLoad:
    """How busy one worker of a serving group is."""

    rank: int
    heard_at: float
    """When it was last heard of: wall clock, seconds of Unix time."""
    pages_used: int
    num_pages: int
    tickets_waiting: int
    """Tickets that are this worker's to pass: the one before it has."""


@dataclass(frozen=True, kw_only=True)
class FleetView:
    """The workers at one moment."""

    state: EngineState
    """Never ``draining``: workers know no video."""
    failure: StartError | None = None
    """Why the state is ``failed``."""
    start_progress: str | None = None
    """How far the start of a group is, for people; None when none starts."""
    facts: EngineFacts | None = None
    """What the last group that served said of itself; None before the first."""
    pages_used: int = 0
    """In all pools."""
    worker_loads: tuple[WorkerLoad, ...] = ()
    """How busy each worker is, by rank; empty while no group serves."""
    worker_pids: tuple[int | None, ...] = ()
    """Process ids by rank, for operators and tests; None for workers of other nodes."""
    recovery_times_s: tuple[float, ...] = ()
    """Of each group that was lost: seconds until the next one served."""
