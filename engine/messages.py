"""The process boundary between front and worker: every message, grouped by direction. Frozen, no behaviour.

Each ticket is sent to every worker of a chain, in one order, and executed in it (design, law 2). Only latents travel
from worker to worker, one tensor a block ticket, so they need no header and no sentinel.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.law.placement import PassCosts, Plan
from engine.request import Output, Pixels, Quality, TensorBytes
from engine.trace import Rests, Span

FRONT_PID = "_HIAR_FRONT_PID"
"""Variable of the environment that names the front to the process that workers are forked from."""


# --- front -> worker: the start, in this order ---


@dataclass(frozen=True, kw_only=True)
class MeasureCosts:
    """Load the model and tell what its passes cost; answered by ``CostsMeasured``."""


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """Where the workers of one group meet."""

    store: str
    """``file:PATH`` for one host, ``tcp:HOST:PORT`` for several."""
    generation: int
    """Groups before this one; a worker of an earlier group cannot join."""


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Become worker ``rank`` of the plan: load what it needs, meet the others; answered by ``WorkerReady``."""

    rank: int
    plan: Plan
    rendezvous: Rendezvous
    attentions: tuple[str, ...] = ()
    """Ways to attend that this device passed the trial with in an earlier group; empty to try all there are."""


# --- front -> worker: tickets, which ride the chain stage by stage ---


@dataclass(frozen=True, kw_only=True)
class OpenTicket:
    """A video begins. ``embedding`` holds the prompt's valid rows only: [num_tokens, text_dim]."""

    video: str
    seed: int
    latent_height: int
    latent_width: int
    fps: int
    quality: Quality
    output: Output
    embedding: TensorBytes
    from_frame: int = 0
    """The first frame that is encoded, counted from the beginning of the video."""
    first_sequence: int = 1
    """What its fragment is numbered."""
    first_block: int = 0
    """Blocks before this one are in the log: they are made again, and encoded again for what the encoder remembers of
    them, and not sent again. Those that the video shows nothing of are not encoded."""


@dataclass(frozen=True, kw_only=True)
class RestoreTicket:
    """A block whose latents are known: fill its pages and warm up the decoder, without denoising or showing it."""

    video: str
    block: int
    latents: tuple[tuple[int, TensorBytes], ...]
    """By stage: what its cache pass read."""
    clean: bool = False
    """It is clean context for every stage, as blocks are that were known before it denoised any."""


@dataclass(frozen=True, kw_only=True)
class ContextTicket:
    """A block that left the chain, finished before those behind it began: every stage makes it clean context."""

    video: str
    block: int
    latents: TensorBytes


@dataclass(frozen=True, kw_only=True)
class BlockTicket:
    """Generate one block. ``num_frames`` is how many of its frames are shown (the last block may be cut short); none of
    one that another video has shown.
    """

    video: str
    block: int
    num_frames: int
    num_skipped: int = 0
    """Frames before those, which another video has shown."""
    last: bool
    """No block of the video follows, so no cache pass is needed."""
    save: bool = False
    """Send what the cache passes read to the front, for a ``RestoreTicket`` later."""
    opening: bool = False
    """It is the first block that is denoised: some roll-outs have other steps for it."""
    alone: bool = False
    """Finish it without cache passes and send its clean latents to the front, for a ``ContextTicket``."""
    given: TensorBytes | None = None
    """Its clean latents, where they are known: it is shown and is clean context, and not denoised."""


@dataclass(frozen=True, kw_only=True)
class PromptTicket:
    """The blocks after this ticket follow another prompt."""

    video: str
    embedding: TensorBytes


@dataclass(frozen=True, kw_only=True)
class CloseTicket:
    """The video ends here; each stage frees its pages when the ticket passes."""

    video: str


Ticket = OpenTicket | RestoreTicket | ContextTicket | BlockTicket | PromptTicket | CloseTicket


# --- front -> worker: beside the chain ---


@dataclass(frozen=True, kw_only=True)
class EncodePrompt:
    """Run the text encoder; answered by ``PromptEncoded`` or ``PromptFailed``."""

    request: int
    text: str


@dataclass(frozen=True, kw_only=True)
class EncodePixels:
    """Turn a picture or a clip into the latents of a video's first blocks; answered by ``PixelsEncoded`` or
    ``PixelsFailed``.
    """

    request: int
    pixels: Pixels


Question = EncodePrompt | EncodePixels


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Nobody waits for this video any more: its tickets pass without being computed until its close ticket."""

    video: str


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """Leave the loop and exit."""


# --- worker -> front ---


class StartPhase(StrEnum):
    """What the start of a worker is made of."""

    READING = "reading"
    """A file of weights; counted in bytes."""
    MEASURING = "measuring"
    """What passes cost; counted in forwards."""
    CAPTURING = "capturing"
    """Forwards that will be replayed, and those that only have to run once; counted in forwards."""
    WARMING = "warming"
    """The first video, which nobody sees; counted in blocks."""


@dataclass(frozen=True, kw_only=True)
class StartProgress:
    """How far a worker's start is. ``what`` is the file that is read; empty for other phases."""

    phase: StartPhase
    what: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class DeviceOpened:
    """The first message of a worker: what there is before it loads anything."""

    kind: str
    free_bytes: int
    """Of its memory, this worker's own context included; of the host's for a CPU."""
    host_free_bytes: int
    fp8: bool


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """What a worker holds once it has captured all it will capture, before it made a block."""

    items: tuple[tuple[str, int], ...]
    """Bytes by name, as the plan names them; what cannot be told apart is left out."""
    total_bytes: int
    """All that the process took of its device; of the host's memory, shared pages included, for a CPU."""


@dataclass(frozen=True, kw_only=True)
class CostsMeasured:
    """Answer to ``MeasureCosts``."""

    costs: PassCosts
    load_s: float
    """What had to be loaded and tried before; a restart does that part again."""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """What a worker says of itself once it can serve."""

    device_name: str
    num_pages: int
    page_bytes: int
    attention: str
    attentions: tuple[str, ...]
    """Ways to attend that passed the trial, that one included; empty where none was made."""
    dtype: str
    encoder: str | None
    codecs: str | None
    """RFC 6381 string of the default size; None unless it encodes."""
    takes_pictures: bool
    """Whether it answers ``EncodePixels``."""
    memory: MemoryUse


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """The worker has loaded what its placement needs and met the others."""

    facts: WorkerFacts


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life after each step of work. Counts are since the start of the worker."""

    tickets_passed: int
    """Tickets this worker is done with, but for cache passes that nobody waits for."""
    pages_used: int
    spans: tuple[Span, ...]
    rests: Rests
    """What it did, and how long it did nothing, since it last told."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """The worker lives and waits for messages. Unlike a ``Beat`` this is no progress: what it waits for may be lost."""

    spans: tuple[Span, ...]
    rests: Rests


@dataclass(frozen=True, kw_only=True)
class WorkBegins:
    """What the worker turns to now: if it is never heard of again, one of these videos may be why."""

    videos: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StartFailed:
    """The worker cannot start; it exits after this."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PromptEncoded:
    """Answer to ``EncodePrompt``: the valid rows."""

    request: int
    embedding: TensorBytes


@dataclass(frozen=True, kw_only=True)
class PromptFailed:
    """Answer to ``EncodePrompt``: it cannot be embedded."""

    request: int
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PixelsEncoded:
    """Answer to ``EncodePixels``: clean latents [F, C, Y, X] by block, from block 0."""

    request: int
    blocks: tuple[TensorBytes, ...]


@dataclass(frozen=True, kw_only=True)
class PixelsFailed:
    """Answer to ``EncodePixels``: it cannot be done. Only the video that asked is concerned."""

    request: int
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class InitReady:
    """The video's init segment (``ftyp`` and ``moov``) and its codecs string."""

    video: str
    data: bytes
    codecs: str


@dataclass(frozen=True, kw_only=True)
class BlockDone:
    """A block left the chain: one fragment, or its latents in ``latents``."""

    video: str
    block: int
    num_frames: int
    data: bytes
    latents: TensorBytes | None
    decode_s: float
    encode_s: float


@dataclass(frozen=True, kw_only=True)
class BlockRepeated:
    """A block before the video's ``first_block`` left the chain."""

    video: str
    block: int


@dataclass(frozen=True, kw_only=True)
class LatentsSaved:
    """What a stage's cache pass of a block reads."""

    video: str
    block: int
    stage: int
    latents: TensorBytes


@dataclass(frozen=True, kw_only=True)
class VideoBroken:
    """The worker gave up on one video; a close ticket is still needed to free it."""

    video: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class VideoClosed:
    """The close ticket passed this worker; ``pages_used`` counts what is still taken in its pool."""

    video: str
    pages_used: int


# --- what may cross ---

ToWorker = MeasureCosts | Assign | Ticket | Question | Cancel | Shutdown
OfStart = DeviceOpened | StartProgress | CostsMeasured | WorkerReady | StartFailed
OfWork = Beat | Idle
OfVideo = InitReady | BlockDone | BlockRepeated | LatentsSaved | VideoBroken | VideoClosed
Answer = PromptEncoded | PromptFailed | PixelsEncoded | PixelsFailed
ForFront = Answer | OfVideo | OfWork
"""What tells of videos; the rest is about the worker."""
FromWorker = OfStart | WorkBegins | ForFront
