"""What the server tells, as frozen records, and how they are read from JSON.

The fields and words are those of the server's OpenAPI document. A field that a newer server adds is passed over, and a
word that it adds is kept as it came.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hiar_client.errors import UnexpectedAnswer

Pace = Literal["realtime", "fast"]
"""``realtime`` stays a few seconds ahead of playback; ``fast`` does not wait."""
Quality = Literal["draft", "standard", "high"]
"""How many bits the encoder spends."""
Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Variant = Literal["video", "thumbnail", "spritesheet"]
"""Of a video's content: MP4, WebP, JPEG."""
Order = Literal["asc", "desc"]
"""Of the list of videos; newest first is ``desc``."""
EndReason = Literal[
    "completed",
    "limit",
    "cancelled",
    "drain",
    "client_disconnect",
    "slow_client",
    "pause_limit",
    "timeout",
    "internal_error",
]
"""Why a video ended that did not fail."""
State = Literal["starting", "ready", "restarting", "draining", "failed", "stopped"]
"""Of a server."""
_Record = TypeVar("_Record")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a video failed."""

    code: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptAt:
    """A prompt and where the video begins to follow it."""

    block: int
    at_seconds: float
    prompt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """A loss of workers that the video outlived, or a pause in which it lost its place."""

    block: int
    """The first one after it."""
    exact: bool
    """False if what follows resembles the undisturbed video and does not equal it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Urls:
    """Where a video can be read; with a viewer token where the server asks for keys."""

    content: str
    stream: str
    hls: str
    events: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """How a video is. Times are seconds of Unix time."""

    id: str
    object: Literal["video"]
    created_at: int
    completed_at: int | None
    """When it ended, however that was."""
    expires_at: int | None
    """It is forgotten then, or before it if room is needed."""
    status: Status
    progress: int | None
    """Percent; None for an endless video."""
    model: str
    prompt: str
    """The first one."""
    seconds: str | None
    """Length that was asked for, as text; None for an endless video."""
    size: str
    error: Failure | None
    seed: int
    fps: int
    queue_position: int | None
    """From 1; None when it does not wait."""
    paused: bool
    blocks_done: int
    first_block: int
    """The earliest that can still be read."""
    seconds_done: float
    lead_seconds: float | None
    """How far the newest block is ahead of what its leading reader plays."""
    realtime_factor: float | None
    """Seconds of video generated a second; None before it is known."""
    stalls: int
    """Times that playback stood still, waiting for a block."""
    stalled_seconds: float
    end_reason: EndReason | None
    readers: int
    prompts: tuple[PromptAt, ...]
    recoveries: tuple[Recovery, ...]
    remixed_from_video_id: str | None
    extended_from_video_id: str | None
    bytes: int
    """Of all blocks that were made."""
    urls: Urls

    @property
    def has_ended(self) -> bool:
        """Whether nothing more of it comes."""
        return self.status not in {"queued", "in_progress"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoPage:
    """A page of the list of videos."""

    object: Literal["list"]
    data: tuple[VideoInfo, ...]
    first_id: str | None
    last_id: str | None
    """For ``after`` of the next page."""
    has_more: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoDeleted:
    """A video that is no more."""

    id: str
    object: Literal["video.deleted"]
    deleted: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptChange:
    """Where a new prompt takes effect."""

    id: str
    block: int
    """The first one that follows it."""
    at_seconds: float
    """Playback time of that block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    description: str
    preset: str | None
    """The known checkpoint whose roll-out it has."""
    sizes: tuple[str, ...]
    """WIDTHxHEIGHT in pixels; the first is the default."""
    fps: int
    max_fps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """All models of a server."""

    object: Literal["list"]
    data: tuple[Model, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server accepts at most."""

    max_videos: int
    max_queue: int
    max_seconds: float | None
    """Longest video; None is no limit."""
    prompt_length: int
    prompts: int
    body_bytes: int
    upload_bytes: int
    """Of a body with a picture or a clip."""
    max_per_client: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """How busy a server is."""

    running: int
    waiting: int
    slots: int
    pages_used: int
    num_pages: int
    restarts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """What one worker of a server runs."""

    rank: int
    device: str
    chain: int
    stages: tuple[str, ...]
    load_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dtypes:
    """The types of numbers in use."""

    activations: str
    pages: str
    linears: str
    attention: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """How a server runs its model."""

    workers: tuple[Worker, ...]
    frames_per_second: float
    attention: str
    dtypes: Dtypes
    decoder: str
    encoder: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What can be asked of a server, and how busy it is."""

    state: State
    model: str
    mime: str | None
    """With codecs, for a player; None until the server is ready."""
    sizes: tuple[str, ...]
    fps: int
    max_fps: int
    block_seconds: float
    """Length of a block at the default rate; the first one is shorter."""
    takes_pictures: bool | None
    """Whether videos can start from ``image`` or ``video``; None until the server is ready."""
    needs_key: bool
    limits: Limits
    load: Load
    facts: Facts | None
    """None until the server is ready."""


def read_body(kind: type[_Record], body: bytes) -> _Record:
    """A record out of an answer's body. Raises ``UnexpectedAnswer``."""
    try:
        told = json.loads(body)
    except ValueError:
        raise UnexpectedAnswer(f"a {kind.__name__} was expected and no JSON came; is this a HiAR server?") from None
    return read(kind, told)


def read(kind: type[_Record], told: Any) -> _Record:
    """A record out of JSON. Raises ``UnexpectedAnswer`` where a field is missing."""
    if not isinstance(told, Mapping):
        raise UnexpectedAnswer(f"a {kind.__name__} was expected and {type(told).__name__} came")
    try:
        return kind(**{name: _value(hint, told[name]) for name, hint in get_type_hints(kind).items()})
    except KeyError as missing:
        raise UnexpectedAnswer(f"a {kind.__name__} came without {missing}; is the server older?") from None


def _value(hint: Any, told: Any) -> Any:
    if get_origin(hint) in {Union, types.UnionType}:
        return None if told is None else _value(next(one for one in get_args(hint) if one is not type(None)), told)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], one) for one in told)
    return read(hint, told) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else told
