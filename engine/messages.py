"""The process boundary between front and worker: every message, grouped by direction. Frozen, no behaviour.

Tickets are executed by every stage in the order in which they are sent (design, law 2); no message carries a sentinel.
"""

from dataclasses import dataclass

from engine.request import EngineFacts, Output, Quality


@dataclass(frozen=True, kw_only=True)
class TensorBytes:
    """A tensor as plain bytes, so that a process without torch can pass it on."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


# --- front -> worker: tickets, which ride the chain stage by stage ---


@dataclass(frozen=True, kw_only=True)
class OpenTicket:
    """A session begins. ``embedding`` holds the prompt's valid rows only: [num_tokens, text_dim]."""

    session: str
    seed: int
    latent_height: int
    latent_width: int
    fps: int
    quality: Quality
    output: Output
    embedding: TensorBytes


@dataclass(frozen=True, kw_only=True)
class BlockTicket:
    """Generate one block. ``num_frames`` is how many of its frames are shown (the last block may be cut short)."""

    session: str
    block: int
    num_frames: int
    last: bool
    """No block of the session follows, so no cache pass is needed."""


@dataclass(frozen=True, kw_only=True)
class PromptTicket:
    """The blocks after this ticket follow another prompt."""

    session: str
    embedding: TensorBytes


@dataclass(frozen=True, kw_only=True)
class CloseTicket:
    """The session ends here; each stage frees its pages when the ticket passes."""

    session: str


Ticket = OpenTicket | BlockTicket | PromptTicket | CloseTicket


# --- front -> worker: beside the chain ---


@dataclass(frozen=True, kw_only=True)
class EncodePrompt:
    """Run the text encoder; answered by ``PromptEncoded``."""

    request: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Nobody waits for this session any more: its tickets pass without being computed until its close ticket."""

    session: str


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """Leave the loop and exit."""


# --- worker -> front ---


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """The model is loaded and warm."""

    facts: EngineFacts


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
class InitReady:
    """The session's init segment (``ftyp`` and ``moov``) and its codecs string."""

    session: str
    data: bytes
    codecs: str


@dataclass(frozen=True, kw_only=True)
class BlockDone:
    """A block left the chain: one fragment, or its latents in ``latents``."""

    session: str
    block: int
    num_frames: int
    data: bytes
    latents: TensorBytes | None
    decode_s: float
    encode_s: float


@dataclass(frozen=True, kw_only=True)
class SessionBroken:
    """The worker gave up on one session; a close ticket is still needed to free it."""

    session: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class SessionClosed:
    """The close ticket passed the last stage; ``pages_used`` counts what is still taken in the pool."""

    session: str
    pages_used: int
