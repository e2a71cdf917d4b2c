"""A video as a resource: the object that tells how it is, in the shape that OpenAI's clients know, and ours added."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, Field

from engine import EndReason, VideoStatus
from server.errors import row_of
from server.http.tokens import with_token


class Status(StrEnum):
    """Where a video stands."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FailureAnswer(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class PromptAnswer(BaseModel):
    """A prompt and where the video begins to follow it."""

    block: int
    at_seconds: float
    prompt: str


class RecoveryAnswer(BaseModel):
    """A loss of workers that the video outlived, or a pause in which it lost its place."""

    block: int = Field(description="The first block after it.")
    exact: bool = Field(description="False if what follows resembles the undisturbed video and does not equal it.")


class UrlsAnswer(BaseModel):
    """Where it can be read; with a viewer token where keys are asked for."""

    content: str
    stream: str
    hls: str
    events: str


class VideoAnswer(BaseModel):
    """One video: queued, being generated, or ended and kept until `expires_at`. Times are seconds of Unix time."""

    id: str
    object: Literal["video"] = "video"
    created_at: int
    completed_at: int | None = Field(description="When it ended, however that was.")
    expires_at: int | None = Field(description="An ended video is forgotten then, or before it if room is needed.")
    status: Status
    progress: int | None = Field(description="Percent; null for an endless video.")
    model: str
    prompt: str = Field(description="The first one.")
    seconds: str | None = Field(description="Length that was asked for; null for an endless video.")
    size: str
    error: FailureAnswer | None
    seed: int
    fps: int
    queue_position: int | None = Field(description="Its place in the queue, from 1; null when it does not wait.")
    paused: bool = Field(description="No more blocks of it are begun until it is resumed.")
    blocks_done: int
    first_block: int = Field(description="The earliest block that can still be read.")
    seconds_done: float
    lead_seconds: float | None = Field(
        description="How far the newest block is ahead of what its leading reader plays."
    )
    realtime_factor: float | None = Field(description="Seconds of video generated a second; null before it is known.")
    stalls: int = Field(description="Times that playback stood still, waiting for a block.")
    stalled_seconds: float = Field(description="How long in all, one that lasts included.")
    end_reason: EndReason | None
    readers: int
    prompts: list[PromptAnswer]
    recoveries: list[RecoveryAnswer]
    remixed_from_video_id: str | None = Field(description="The video that this is another version of.")
    extended_from_video_id: str | None = Field(description="The video that this one continues.")
    bytes: int = Field(description="Of all blocks that were made.")
    urls: UrlsAnswer

    @classmethod
    def of(cls, status: VideoStatus, model: str, token: str | None) -> Self:
        """Take over the engine's status. ``token``: what lets a viewer in, where keys are asked for."""
        request, failure = status.request, status.failure
        address = f"/v1/videos/{status.id}"
        return cls(
            id=status.id,
            created_at=int(status.created_at),
            completed_at=None if status.ended_at is None else int(status.ended_at),
            expires_at=None if status.expires_at is None else int(status.expires_at),
            status=_status(status),
            progress=_progress(status),
            model=model,
            prompt=request.prompts[0].text,
            seconds=None if request.seconds is None else f"{request.seconds:g}",
            size=f"{request.width_px}x{request.height_px}",
            error=None if failure is None else FailureAnswer(code=row_of(failure).code, message=failure.message),
            seed=request.seed,
            fps=request.fps,
            queue_position=status.queue_position,
            paused=status.is_paused,
            blocks_done=status.blocks_done,
            first_block=status.first_block,
            seconds_done=round(status.seconds_done, 6),
            lead_seconds=_rounded(status.lead_s),
            realtime_factor=_rounded(status.realtime_factor),
            stalls=status.num_stalls,
            stalled_seconds=round(status.stalled_s, 3),
            end_reason=status.end_reason,
            readers=status.num_readers,
            prompts=[PromptAnswer(block=one.block, at_seconds=one.at_s, prompt=one.text) for one in status.prompts],
            recoveries=[RecoveryAnswer(block=past.block, exact=past.exact) for past in status.recoveries],
            remixed_from_video_id=request.remixed_from,
            extended_from_video_id=None if request.continues is None else request.continues.source,
            bytes=status.num_bytes,
            urls=UrlsAnswer(
                content=with_token(f"{address}/content", token),
                stream=with_token(f"{address}/stream", token),
                hls=with_token(f"{address}/index.m3u8", token),
                events=with_token(f"{address}/events", token),
            ),
        )


class VideosAnswer(BaseModel):
    """A page of the list."""

    object: Literal["list"] = "list"
    data: list[VideoAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """A video that is no more."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class PromptChanged(BaseModel):
    """Where a new prompt takes effect."""

    id: str
    block: int = Field(description="First block that follows the new prompt.")
    at_seconds: float = Field(description="Playback time of that block.")


def _status(status: VideoStatus) -> Status:
    if status.failure is not None:
        return Status.FAILED
    if status.end_reason in {EndReason.COMPLETED, EndReason.LIMIT}:
        return Status.COMPLETED
    if status.end_reason is not None:
        return Status.CANCELLED
    return Status.QUEUED if status.is_queued else Status.IN_PROGRESS


def _progress(status: VideoStatus) -> int | None:
    return None if status.num_blocks is None else 100 * status.blocks_done // status.num_blocks


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
