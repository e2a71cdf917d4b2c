"""What the ``data`` of an event holds, for the document; ``server.videos.events`` writes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine import EndReason
from server.videos.resource import FailureAnswer

EventType = Literal[
    "queued", "started", "prompt", "block", "paused", "resumed", "recovering", "recovered", "ended", "failed"
]


class StepAnswer(BaseModel):
    """A denoising step of a block. Times are seconds since the video left the queue."""

    model_config = ConfigDict(extra="forbid")

    step: int = Field(description="From 0.")
    worker: int = Field(description="The worker that ran it.")
    began_seconds: float
    took_seconds: float


class EventAnswer(BaseModel):
    """What happened to a video: `type` says what, and which other fields are there."""

    model_config = ConfigDict(extra="forbid")

    type: EventType
    id: str = Field(description="The video's.")
    queue_position: int = Field(default=0, description="Of `queued`: 1 is next.")
    block: int = Field(
        default=0, description="Of `block`: its number. Of `prompt` and `recovered`: the first that follows."
    )
    at_seconds: float = Field(default=0.0, description="Of `prompt`: when that block plays.")
    prompt: str = Field(default="", description="Of `prompt`.")
    blocks_done: int = Field(default=0, description="Of `block`, `ended` and `failed`.")
    seconds_done: float = Field(default=0.0, description="Of `block`, `ended` and `failed`.")
    lead_seconds: float | None = Field(default=None, description="Of `block`.")
    realtime_factor: float | None = Field(default=None, description="Of `block`.")
    steps: list[StepAnswer] = Field(
        default=[], description="Of `block`: when its denoising steps ran, in order, as far as that is known."
    )
    exact: bool = Field(default=True, description="Of `recovered`: whether it goes on as if nothing had happened.")
    end_reason: EndReason | None = Field(default=None, description="Of `ended`.")
    error: FailureAnswer | None = Field(default=None, description="Of `failed`.")
