"""The requests of the API, as values."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Literal, TypedDict, get_type_hints
from urllib.parse import quote, urlencode

from hiar_client.errors import BadMedia
from hiar_client.exchange import IDEMPOTENCY_KEY, Request, new_key
from hiar_client.objects import Order, Pace, Quality, Variant

LINGER_SECONDS = 30.0
"""How long a video of ``generate`` outlives a lost connection, where it is to be resumed."""

Prompt = str | Sequence[tuple[float, str]]
"""What to show; or (at_seconds, text) pairs in order of time, the first at 0."""
Media = bytes | str | os.PathLike[str] | BinaryIO
"""A picture or a clip of this machine: its bytes, a path, or a file that is open for reading bytes."""
FromBlock = int | Literal["live"]
"""Where to begin; ``live`` is the newest block."""


class _VideoFields(TypedDict, total=False):
    seconds: float | None
    """Length of the video; ``math.inf`` is endless. None: ``generate`` is endless, ``create`` makes 4 s."""
    seed: int | None
    """The same request with the same seed gives the same video."""
    size: str | None
    """WIDTHxHEIGHT in pixels, one that ``models`` lists."""
    fps: int | None
    pace: Pace | None
    quality: Quality | None
    priority: int | None
    model: str | None
    image: Media | None
    """The video begins with this picture: JPEG, PNG or WebP."""
    video: Media | None
    """The video goes on from this clip: MP4. In place of ``image``."""


class GenerateFields(_VideoFields, total=False):
    """What ``generate`` takes beside the prompt. ``None`` is as if it were not given."""

    linger_seconds: float | None
    """How long the video lives on when nobody reads it any more, at most 600."""


class CreateFields(_VideoFields, total=False):
    """What ``videos.create`` takes beside the prompt. ``None`` is as if it were not given."""


def generate(prompt: Prompt, fields: GenerateFields, *, resume: bool) -> tuple[Request, bool]:
    """Make a video and stream it; and whether it is to end when it is left, though it lingers to be resumed."""
    _refuse_unknown(fields, GenerateFields)
    lingers_for_us = resume and fields.get("linger_seconds") is None
    linger: GenerateFields = {"linger_seconds": LINGER_SECONDS} if lingers_for_us else {}
    return _making("/v1/generate", prompt, {**fields, **linger}, is_stream=True), lingers_for_us


def create(prompt: Prompt, fields: CreateFields) -> Request:
    """Make a video that is read later."""
    _refuse_unknown(fields, CreateFields)
    return _making("/v1/videos", prompt, fields)


def _refuse_unknown(fields: Mapping[str, Any], known: type) -> None:
    unknown = fields.keys() - get_type_hints(known).keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}; known are {', '.join(get_type_hints(known))}")


def _making(path: str, prompt: Prompt, fields: Mapping[str, Any], *, is_stream: bool = False) -> Request:
    body = {"prompt": _prompt(prompt), **{name: value for name, value in fields.items() if value is not None}}
    if body.get("seconds") == math.inf:
        body["seconds"] = None
    for name in ("image", "video"):
        if name in body:
            body[name] = base64.b64encode(_media(name, body[name])).decode("ascii")
    # The key makes it safe to ask again when an answer was lost.
    return _post(
        path,
        body,
        {IDEMPOTENCY_KEY: new_key(), "Accept-Encoding": "identity"},
        is_stream=is_stream,
        is_repeatable=True,
    )


def _prompt(prompt: Prompt) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [{"at_seconds": at_seconds, "prompt": text} for at_seconds, text in prompt]


def _media(name: str, media: Media) -> bytes:
    if isinstance(media, bytes):
        return media
    try:
        if isinstance(media, str | os.PathLike):
            with open(media, "rb") as file:
                return file.read()
        return media.read()
    except OSError as error:
        raise BadMedia(f"{name}: cannot read {error.filename or 'the file'}: {error.strerror}", param=name) from error


def stream(video_id: str, from_block: FromBlock) -> Request:
    """Read a video from a block on."""
    return _get(video_id, f"/stream?from={from_block}", is_stream=True)


def video(video_id: str) -> Request:
    """Tell how a video is."""
    return _get(video_id)


def videos(limit: int, after: str | None, order: Order) -> Request:
    """A page of the list."""
    query = {"limit": str(limit), "order": order, **({} if after is None else {"after": after})}
    return Request(method="GET", path=f"/v1/videos?{urlencode(query)}")


def content(video_id: str, variant: Variant, headers: Mapping[str, str] | None = None) -> Request:
    """The file of a video, or a picture of it."""
    return _get(video_id, f"/content?variant={quote(variant)}", headers, is_stream=True)


def events(video_id: str, after: int | None) -> Request:
    """What happens to a video behind an event."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    return _get(video_id, "/events", headers, is_stream=True)


def delete(video_id: str) -> Request:
    """Forget a video."""
    return Request(method="DELETE", path=_address(video_id))


def steer(video_id: str, word: Literal["cancel", "pause", "resume"]) -> Request:
    """End, hold or go on with a video; twice is as once."""
    return Request(method="POST", path=f"{_address(video_id)}/{word}")


def change_prompt(video_id: str, prompt: str) -> Request:
    """Follow another prompt. Not asked again: a newer one may have come between."""
    return _post(f"{_address(video_id)}/prompt", {"prompt": prompt})


def remix(video_id: str, prompt: str) -> Request:
    """Make a video again with another prompt."""
    return _post(f"{_address(video_id)}/remix", {"prompt": prompt})


def extend(video_id: str, seconds: float, prompt: str | None) -> Request:
    """Go on where a video stopped."""
    return _post(f"{_address(video_id)}/extend", {"seconds": seconds, **({} if prompt is None else {"prompt": prompt})})


def models() -> Request:
    """All models."""
    return Request(method="GET", path="/v1/models")


def model(name: str) -> Request:
    """One model."""
    return Request(method="GET", path=f"/v1/models/{quote(name, safe='')}")


def capabilities() -> Request:
    """What can be asked for."""
    return Request(method="GET", path="/v1/capabilities")


def _get(
    video_id: str, rest: str = "", headers: Mapping[str, str] | None = None, *, is_stream: bool = False
) -> Request:
    if is_stream:  # MP4 does not get smaller, and its bytes are counted
        headers = {"Accept-Encoding": "identity", **(headers or {})}
    return Request(method="GET", path=_address(video_id) + rest, headers=headers or {}, is_stream=is_stream)


def _post(
    path: str,
    body: Any,
    headers: Mapping[str, str] | None = None,
    *,
    is_stream: bool = False,
    is_repeatable: bool = False,
) -> Request:
    # In ASCII: text that is not valid Unicode then reaches the server, which says what is wrong.
    return Request(
        method="POST",
        path=path,
        headers={"Content-Type": "application/json", **(headers or {})},
        content=json.dumps(body).encode("ascii"),
        is_stream=is_stream,
        is_repeatable=is_repeatable,
    )


def _address(video_id: str) -> str:
    return f"/v1/videos/{quote(video_id, safe='')}"
