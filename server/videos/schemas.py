"""Requests for videos, with every bound documented; and how one becomes an engine request.

Whether the model makes such a size and rate, the engine checks.
"""

import itertools
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from engine import Manifest, Pace, PromptAt, Quality, RequestError, VideoRequest

PROMPT_LENGTH_MAX = 4000
PROMPTS_MAX = 64
SECONDS_MAX = 86_400.0
SECONDS_DEFAULT = 4.0
LINGER_MAX = 600.0
SEED_MAX = 2**64 - 1
PRIORITY_MAX = 9
SECONDS_TEXT = (
    r"([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2})(\.[0-9]{1,9})?|86400|0\.0{0,8}[1-9][0-9]{0,8}"
)
"""A number above 0 and up to ``SECONDS_MAX``, as text."""
_SIZE = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")
_WHITE_CONTROLS = frozenset("\t\n\r")
_NO_CONTROL = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]"
PROMPT_PATTERN = rf"^{_NO_CONTROL}*[^\s\u0000-\u001f\u007f-\u009f]{_NO_CONTROL}*$"
"""For the document: what ``_printable_prompt`` takes."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def _printable_prompt(text: str) -> str:
    if len(text) > PROMPT_LENGTH_MAX:
        raise ValueError(f"the prompt has {len(text)} characters; at most {PROMPT_LENGTH_MAX} are taken")
    if not text.strip():
        raise ValueError("the prompt is empty; describe the video in a few words")
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs") and char not in _WHITE_CONTROLS:
            raise ValueError(f"the prompt holds the control character U+{ord(char):04X}; remove it")
    return text


def _whole(number: Any) -> Any:
    """JSON has one kind of number: 7.0 is 7."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


PromptText = Annotated[
    str,
    Field(
        description=f"1 to {PROMPT_LENGTH_MAX} code points, not all spaces; no control characters but tab and newline.",
        examples=["a large red circle drifts to the right over a night sky"],
        json_schema_extra={"minLength": 1, "maxLength": PROMPT_LENGTH_MAX, "pattern": PROMPT_PATTERN},
    ),
]


class TimedPrompt(_Strict):
    """A prompt and the playback time from which it holds."""

    at_seconds: float = Field(ge=0, le=SECONDS_MAX, description="Playback time; the change shows at the next block.")
    prompt: PromptText

    _printable = field_validator("prompt")(_printable_prompt)


def _branch(value: Any) -> str:
    return "schedule" if isinstance(value, list) else "text"


class _VideoFields(_Strict):
    """What every request for a video can say."""

    prompt: Annotated[
        Annotated[PromptText, Tag("text")]
        | Annotated[list[TimedPrompt], Field(min_length=1, max_length=PROMPTS_MAX), Tag("schedule")],
        Discriminator(_branch),
    ] = Field(description="What to show; or a list of prompts in order of time, the first at 0.")
    seed: int = Field(0, ge=0, le=SEED_MAX, description="The same request with the same seed gives the same video.")
    size: str | None = Field(
        None,
        description="WIDTHxHEIGHT in pixels, one that `/v1/models` lists; omit for the model's default.",
    )
    fps: int | None = Field(None, ge=1, description="Frames a second at playback; omit for the model's default.")
    quality: Literal["draft", "standard", "high"] = Field("standard", description="How many bits the encoder spends.")
    priority: int = Field(
        0,
        ge=0,
        le=PRIORITY_MAX,
        description="Of `fast` videos the higher is served first; realtime ones go by deadline. At most what the key "
        "allows; 0 without keys.",
    )
    model: str | None = Field(None, description="Name of the served model; omit to take it as it is.")
    image: str | None = Field(
        None,
        description="A picture that the video begins with, as base64 text: JPEG, PNG or WebP, scaled and cropped "
        "around its centre to `size`. Never an address.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    video: str | None = Field(
        None,
        description="A clip that the video goes on from, as base64 text: MP4 with H.264, HEVC, VP9 or AV1. As many of "
        "its last blocks as the model looks back on. In place of `image`.",
        json_schema_extra={"contentEncoding": "base64"},
    )

    _whole = field_validator("seed", "fps", "priority", mode="before")(_whole)

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


def _number_of(seconds: Any) -> Any:
    """OpenAI's clients send text."""
    if not isinstance(seconds, str):
        return seconds
    if not re.fullmatch(SECONDS_TEXT, seconds):
        raise ValueError('this must be a number of seconds, such as 4 or "4"')
    return float(seconds)


_PACE = "`realtime` stays a few seconds ahead of playback; `fast` does not wait."


class GenerateRequest(_VideoFields):
    """One video to generate and stream in the answer. Only `prompt` is required."""

    seconds: float | None = Field(None, gt=0, description="Length of the video; omit for endless.")
    pace: Literal["realtime", "fast"] = Field("realtime", description=_PACE)
    linger_seconds: float = Field(
        0,
        ge=0,
        le=LINGER_MAX,
        description="How long the video lives on when nobody reads it any more; 0 ends it with its last reader.",
    )


def _or_text(schema: dict[str, Any]) -> None:
    """OpenAI's clients send text: tell so."""
    if "anyOf" not in schema:
        schema["anyOf"] = [{name: schema.pop(name) for name in ("type", "exclusiveMinimum")}]
    schema["anyOf"].insert(1, {"type": "string", "pattern": f"^({SECONDS_TEXT})$", "examples": ["4"]})


class VideoCreate(_VideoFields):
    """One video to generate, whoever reads it. Only `prompt` is required."""

    seconds: float | None = Field(
        SECONDS_DEFAULT,
        gt=0,
        description="Length of the video, as a number or its text; null for endless.",
        json_schema_extra=_or_text,
    )
    pace: Literal["realtime", "fast"] = Field("fast", description=_PACE)

    _text = field_validator("seconds", mode="before")(_number_of)


class PromptChange(_Strict):
    """A new prompt for a running video."""

    prompt: PromptText

    _printable = field_validator("prompt")(_printable_prompt)


class VideoExtend(_Strict):
    """What continues an ended video."""

    seconds: float = Field(
        gt=0,
        description="Length of the new video, as a number or its text.",
        json_schema_extra=_or_text,
    )
    prompt: PromptText | None = Field(None, description="What to show; omit to go on with the last prompt.")

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str | None) -> str | None:
        return None if prompt is None else _printable_prompt(prompt)

    _text = field_validator("seconds", mode="before")(_number_of)


def video_request(
    asked: GenerateRequest | VideoCreate, manifest: Manifest, max_seconds: float | None, owner: str
) -> VideoRequest:
    """Fill in the model's defaults. Raises ``RequestError`` where this server does not offer it."""
    if asked.model is not None and asked.model != manifest.name:
        raise RequestError(f"model: this server runs {manifest.name!r} only", param="model")
    width_px, height_px = _size(asked.size, manifest)
    seconds = _seconds(asked, max_seconds)
    return VideoRequest(
        prompts=_prompts(asked.prompt, seconds),
        width_px=width_px,
        height_px=height_px,
        fps=manifest.video.fps if asked.fps is None else asked.fps,
        seconds=seconds,
        is_cut=asked.seconds is None and seconds is not None,
        seed=asked.seed,
        pace=Pace(asked.pace),
        quality=Quality(asked.quality),
        priority=asked.priority,
        owner=owner,
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
    if not _SIZE.fullmatch(size):
        offered = " or ".join(manifest.video.size_names)
        raise RequestError(f"size: this must be WIDTHxHEIGHT; choose {offered}", "size")
    width_px, _, height_px = size.partition("x")
    return int(width_px), int(height_px)


def _seconds(asked: GenerateRequest | VideoCreate, max_seconds: float | None) -> float | None:
    seconds, limit = asked.seconds, SECONDS_MAX if max_seconds is None else max_seconds
    if seconds is None:
        return max_seconds
    return bounded(seconds, max_seconds) if "seconds" in asked.model_fields_set else min(seconds, limit)


def bounded(seconds: float, max_seconds: float | None) -> float:
    """A length that was asked for. Raises ``RequestError`` if it is above the server's limit."""
    limit = SECONDS_MAX if max_seconds is None else max_seconds
    if seconds > limit:
        raise RequestError(f"seconds: {seconds:g} is above {limit:g}, the limit of this server", param="seconds")
    return seconds
