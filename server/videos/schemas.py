"""Requests for videos and what is told of them, with every bound documented; and how one becomes an engine request.

What depends on the model (its sizes, its highest rate) is checked in ``video_request``.
"""

import itertools
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from engine import (
    EndReason,
    Manifest,
    Pace,
    PromptAt,
    Quality,
    RequestError,
    VideoRequest,
    VideoState,
    VideoStatus,
)

PROMPT_LENGTH_MAX = 4000
PROMPTS_MAX = 64
SECONDS_MAX = 86_400.0
SEED_MAX = 2**64 - 1
FPS_MAX = 120
PRIORITY_MAX = 9
_WHITE_CONTROLS = frozenset("\t\n\r")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def _printable_prompt(text: str) -> str:
    if not text.strip():
        raise ValueError("the prompt is empty; describe the video in a few words")
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs") and char not in _WHITE_CONTROLS:
            raise ValueError(f"the prompt holds the control character U+{ord(char):04X}; remove it")
    return text


PromptText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=PROMPT_LENGTH_MAX,
        description=f"1 to {PROMPT_LENGTH_MAX} code points, not all spaces; no control characters but tab and newline.",
        examples=["a large red circle drifts to the right over a night sky"],
    ),
]


class TimedPrompt(_Strict):
    """A prompt and the playback time from which it holds."""

    at_seconds: float = Field(ge=0, le=SECONDS_MAX, description="Playback time; the change shows at the next block.")
    prompt: PromptText

    _printable = field_validator("prompt")(_printable_prompt)


def _branch(value: Any) -> str:
    return "schedule" if isinstance(value, list) else "text"


class GenerateRequest(_Strict):
    """One video to generate. Only `prompt` is required."""

    prompt: Annotated[
        Annotated[PromptText, Tag("text")]
        | Annotated[list[TimedPrompt], Field(min_length=1, max_length=PROMPTS_MAX), Tag("schedule")],
        Discriminator(_branch),
    ] = Field(description="What to show; or a list of prompts in order of time, the first at 0.")
    seconds: float | None = Field(None, gt=0, le=SECONDS_MAX, description="Length of the video; omit for endless.")
    seed: int = Field(0, ge=0, le=SEED_MAX, description="The same request with the same seed gives the same video.")
    size: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$",
        description="WIDTHxHEIGHT in pixels, one that `/v1/models` lists; omit for the model's default.",
        examples=["832x480"],
    )
    fps: int | None = Field(
        None, ge=1, le=FPS_MAX, description="Frames a second at playback; omit for the model's default."
    )
    pace: Literal["realtime", "fast"] = Field(
        "realtime", description="`realtime` stays a few seconds ahead of playback; `fast` does not wait."
    )
    quality: Literal["draft", "standard", "high"] = Field("standard", description="How many bits the encoder spends.")
    priority: int = Field(
        0,
        ge=0,
        le=PRIORITY_MAX,
        description="Of `fast` videos the higher is served first; realtime ones go by deadline.",
    )
    model: str | None = Field(None, max_length=200, description="Name of the served model; omit to take it as it is.")

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | list[TimedPrompt]) -> str | list[TimedPrompt]:
        if isinstance(prompt, str):
            return _printable_prompt(prompt)
        starts = [timed.at_seconds for timed in prompt]
        if starts[0] != 0:
            raise ValueError(f"the first prompt starts at {starts[0]:g} s; it must start at 0")
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise ValueError("at_seconds must ascend from prompt to prompt")
        return prompt


class PromptChange(_Strict):
    """A new prompt for a running video."""

    prompt: PromptText

    _printable = field_validator("prompt")(_printable_prompt)


class PromptChanged(BaseModel):
    """Where a new prompt takes effect."""

    video: str
    block: int = Field(description="First block that follows the new prompt.")


class RecoveryAnswer(BaseModel):
    """A loss of workers that the video outlived."""

    block: int = Field(description="The first block after it.")
    exact: bool = Field(description="False if what follows resembles the undisturbed video and does not equal it.")


class VideoAnswer(BaseModel):
    """One video that is being generated, or has just ended."""

    video: str
    state: VideoState
    queue_position: int | None = Field(description="Requests ahead of it while queued; null afterwards.")
    blocks_done: int
    seconds_done: float = Field(description="Seconds of video delivered so far.")
    realtime_factor: float | None = Field(description="Seconds of video generated a second; null before it is known.")
    end_reason: EndReason | None = None
    stalls: int = Field(description="Times that playback would have stood still, waiting for a block.")
    stalled_seconds: float
    recoveries: list[RecoveryAnswer]

    @classmethod
    def of(cls, status: VideoStatus) -> Self:
        """Take over the engine's status."""
        return cls(
            video=status.id,
            state=status.state,
            queue_position=status.queue_position,
            blocks_done=status.blocks_done,
            seconds_done=status.seconds_done,
            realtime_factor=status.realtime_factor,
            end_reason=status.end_reason,
            stalls=status.num_stalls,
            stalled_seconds=round(status.stalled_s, 3),
            recoveries=[RecoveryAnswer(block=past.block, exact=past.exact) for past in status.recoveries],
        )


def size_names(manifest: Manifest) -> list[str]:
    """The model's sizes as callers write them; the first is the default."""
    return [f"{width_px}x{height_px}" for width_px, height_px in manifest.video.sizes]


def video_request(asked: GenerateRequest, manifest: Manifest, max_seconds: float | None) -> VideoRequest:
    """Fill in the model's defaults. Raises ``RequestError`` where the model or this server does not offer it."""
    if asked.model is not None and asked.model != manifest.name:
        raise RequestError(f"model: this server runs {manifest.name!r} only", param="model")
    width_px, height_px = _size(asked.size, manifest)
    seconds = _seconds(asked.seconds, max_seconds)
    return VideoRequest(
        prompts=_prompts(asked.prompt, seconds),
        width_px=width_px,
        height_px=height_px,
        fps=_fps(asked.fps, manifest),
        seconds=seconds,
        seed=asked.seed,
        pace=Pace(asked.pace),
        quality=Quality(asked.quality),
        priority=asked.priority,
    )


def _prompts(prompt: str | list[TimedPrompt], seconds: float | None) -> tuple[PromptAt, ...]:
    if isinstance(prompt, str):
        return (PromptAt(at_s=0.0, text=prompt),)
    last = prompt[-1].at_seconds
    if seconds is not None and last >= seconds:
        param = f"prompt[{len(prompt) - 1}].at_seconds"
        raise RequestError(f"{param}: {last:g} is not before the end of the video at {seconds:g} s", param=param)
    return tuple(PromptAt(at_s=timed.at_seconds, text=timed.prompt) for timed in prompt)


def _size(size: str | None, manifest: Manifest) -> tuple[int, int]:
    if size is None:
        return manifest.video.sizes[0]
    names = size_names(manifest)
    if size not in names:
        raise RequestError(f"size: {size} is not offered; choose {' or '.join(names)}", param="size")
    return manifest.video.sizes[names.index(size)]


def _fps(fps: int | None, manifest: Manifest) -> int:
    if fps is None:
        return manifest.video.fps
    if fps > manifest.video.max_fps:
        raise RequestError(f"fps: {fps} is above {manifest.video.max_fps}, the highest of this model", param="fps")
    return fps


def _seconds(seconds: float | None, max_seconds: float | None) -> float | None:
    if max_seconds is None:
        return seconds
    if seconds is not None and seconds > max_seconds:
        raise RequestError(f"seconds: {seconds:g} is above {max_seconds:g}, the limit of this server", param="seconds")
    return seconds if seconds is not None else max_seconds
