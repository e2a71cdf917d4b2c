"""Messages between nodes: typed JSON in bounded frames over TCP. No pickle: a peer can send values, never code.

A frame is ``length | type name | newline | [worker, {fields}]``. The length (4 bytes, big-endian) counts what follows
it; ``worker`` is a worker's number on the other node, as the front counts them, or 0 for a message about the node
itself. Only the classes in ``MESSAGES`` are read, and every field is checked against its declared type.

The channel is for a trusted network, as torch.distributed's own rendezvous is: whoever reaches the port could lend
devices or see prompts. ``HIAR_GROUP_TOKEN`` keeps the nodes of two groups apart; it does not encrypt.

Needs pydantic, which an engine on one host does not. Knows no process and no video.
"""

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter

from engine.engine_config import Precision, Rehearsal
from engine.messages import FromWorker, ToWorker

MAX_FRAME_BYTES = 256 * 2**20
LENGTH_BYTES = 4
BEAT_S = 1.0
NODE = 0
"""In place of a worker's number: the message is about the node itself."""


# --- other node -> front, before anything else ---


@dataclass(frozen=True, kw_only=True)
class Hello:
    """A node offers its devices. Answered by ``Welcome`` or ``Refusal``."""

    node_rank: int
    num_nodes: int
    devices: tuple[str, ...]
    model: str
    model_digest: str
    """Of the manifest without its file paths, which may differ between hosts."""
    version: str
    version_digest: str
    """Of the version and of every message class, so that an edited source is noticed too."""
    token_digest: str
    """SHA-256 of the group token; empty without one."""


# --- front -> other node ---


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """The node has joined. It takes these settings from the front, so that all workers of a group agree."""

    max_videos: int
    max_segments: int | None
    stage_timeout_s: float
    poison_pages: bool
    precision: Precision
    dtype: str
    text_device: str
    rehearsal: Rehearsal | None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The node cannot join, and why."""

    sentence: str


@dataclass(frozen=True, kw_only=True)
class StartWorker:
    """Start a process on ``device``; the frame's number is its name from now on."""

    device: str


@dataclass(frozen=True, kw_only=True)
class KillWorker:
    """End the worker now. ``messages.Shutdown`` asks it to leave."""


@dataclass(frozen=True, kw_only=True)
class AbortWorker:
    """Make the worker write its stacks to the log and end."""


# --- other node -> front ---


@dataclass(frozen=True, kw_only=True)
class WorkerEnded:
    """The worker's process is gone; nothing more comes from it."""

    sentence: str


# --- both ways ---


@dataclass(frozen=True, kw_only=True)
class NodeBeat:
    """The node lives."""


OfNodes = Hello | Welcome | Refusal | StartWorker | KillWorker | AbortWorker | WorkerEnded | NodeBeat
Message = OfNodes | ToWorker | FromWorker
MESSAGES: tuple[type[Any], ...] = get_args(Message)
"""Every class that may cross. ``TensorBytes``, ``Plan`` and the like cross inside these."""

_STRICT = ConfigDict(
    strict=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
)
_ADAPTERS: dict[str, TypeAdapter[tuple[int, Message]]] = {
    kind.__name__: TypeAdapter(tuple[int, kind], config=_STRICT)  # type: ignore[valid-type]
    for kind in MESSAGES
}


def pack(message: Message, worker: int = NODE) -> bytes:
    """One frame. Raises ``ValueError`` for a class that may not cross, a field of another type, or an oversize."""
    adapter = _ADAPTERS.get(type(message).__name__)
    if adapter is None or type(message) not in MESSAGES:
        raise ValueError(f"{type(message).__name__} does not cross between nodes")
    name = type(message).__name__.encode()
    payload = name + b"\n" + adapter.dump_json((worker, message), warnings="error")
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(payload)} bytes is above the limit of {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def unpack(payload: bytes) -> tuple[int, Message]:
    """Worker and message of a frame without its length. Raises ``ValueError`` for anything but a known message."""
    name, newline, body = payload.partition(b"\n")
    adapter = _ADAPTERS.get(name.decode("ascii", "replace"))
    if adapter is None or not newline:
        raise ValueError(f"a frame begins with {name[:40]!r}, which names no message")
    return adapter.validate_json(body)


async def read(reader: asyncio.StreamReader, limit_bytes: int = MAX_FRAME_BYTES) -> tuple[int, Message]:
    """The next frame's worker and message.

    Raises:
        ValueError: the frame is larger than ``limit_bytes`` or holds no known message.
        EOFError: the stream ended, between two frames or inside one (``asyncio.IncompleteReadError``).
        OSError: the connection broke.
    """
    num_bytes = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if num_bytes > limit_bytes:
        raise ValueError(f"a frame of {num_bytes} bytes is above the limit of {limit_bytes}")
    return unpack(await reader.readexactly(num_bytes))


def write(writer: asyncio.StreamWriter, message: Message, worker: int = NODE) -> None:
    """Queue a message; never blocks, and does nothing on a connection that is closing.

    What waits in the queue is bounded by the tickets in flight, and a peer that takes nothing is soon lost.
    """
    if not writer.is_closing():
        writer.write(pack(message, worker))


async def beat(writer: asyncio.StreamWriter, silence_s: float) -> None:
    """Send signs of life until cancelled, several in the time after which a silent node is lost."""
    while True:
        write(writer, NodeBeat())
        await asyncio.sleep(min(BEAT_S, silence_s / 4))


def reason(error: OSError | EOFError | ValueError) -> str:
    """What broke a connection, as part of a sentence."""
    match error:
        case TimeoutError():
            return "it is silent"
        case EOFError():
            return "it closed the connection"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError():
            return str(error)
        case ValueError():
            return "it speaks another language"


def source_version() -> tuple[str, str]:
    """The installed version, and a digest that also changes with any message class."""
    try:
        number = version("hiar-server")
    except PackageNotFoundError:
        number = "not installed"
    schemas = {name: adapter.json_schema() for name, adapter in _ADAPTERS.items()}
    return number, hashlib.sha256(json.dumps([number, schemas], sort_keys=True).encode()).hexdigest()
