"""One operation of the API, and the words that rows of the table of operations are made of."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

A_VIDEO = "/v1/videos/{video_id}"
"""The address of a video."""
Json = dict[str, Any]
"""A piece of the document."""
Model = type[BaseModel]
"""Of JSON."""


class Tag(StrEnum):
    """What operations are sorted by."""

    MAKING = "making"
    VIDEOS = "videos"
    STEERING = "steering"
    READING = "reading"
    SERVER = "server"
    HEALTH = "health"
    PAGES = "pages"
    """Not in the document."""


TAGS = {
    Tag.MAKING: "Make videos: streamed in the answer, or as a resource that is read later.",
    Tag.VIDEOS: "Videos as resources: how they are, which there are, and forgetting them.",
    Tag.STEERING: "Change a video while it is made.",
    Tag.READING: "Read a video: as a file, a live stream, HLS, or events. Any number of readers at once.",
    Tag.SERVER: "What the server makes and how busy it is. Needs no key.",
    Tag.HEALTH: "For probes. Needs no key, and answers to any `Host`.",
}
"""What the document says of them, in its order."""


class Guard(StrEnum):
    """Who may ask."""

    KEY = "key"
    """Whoever has a key, where keys are asked for."""
    VIEWER = "viewer"
    """Or a viewer token of the video."""
    OPEN = "open"
    """Anybody."""
    PROBE = "probe"
    """Anybody, by any name of the server and from any page."""


@dataclass(frozen=True, kw_only=True)
class Media:
    """Bytes of a content type."""

    type: str
    is_text: bool = False
    data: Model | None = None
    """Of events: what the data of each is."""


@dataclass(frozen=True, kw_only=True)
class Success:
    """An answer that is no error."""

    status: int = 200
    description: str
    model: type[BaseModel] | None = None
    """Of a JSON answer."""
    media: tuple[Media, ...] = ()
    """Of one that is not JSON."""
    headers: tuple[str, ...] = ()
    """Names out of ``HEADERS``."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row: an address and a method."""

    id: str
    """What generated clients call it."""
    method: str
    path: str
    tag: Tag
    summary: str
    description: str = ""
    guard: Guard = Guard.KEY
    body: type[BaseModel] | None = None
    takes_form: bool = False
    """Whether a form with files may come in place of the JSON body."""
    parameters: tuple[Json, ...] = ()
    """Beside those of the path."""
    answers: tuple[Success, ...] = ()
    errors: tuple[int, ...] = field(default=())
    """Statuses, beside those that any address answers with and those of its guard."""

    @property
    def is_told(self) -> bool:
        """Whether it is in the document."""
        return self.tag is not Tag.PAGES


def text_header(description: str, example: str) -> Json:
    """A header of an answer."""
    return {"description": description, "schema": {"type": "string"}, "example": example}


HEADERS: dict[str, Json] = {
    "X-Request-Id": text_header("Names this request in the server's log.", "r_5f0c2a9be1d47730"),
    "Location": text_header("The video's resource.", "/v1/videos/video_4jJ0aVZpW8sQmT2cXk1LrN6d"),
    "X-Video-Id": text_header("For `/v1/videos/{video_id}`.", "video_4jJ0aVZpW8sQmT2cXk1LrN6d"),
    "X-Decoder": text_header(
        "What turns latents into pictures: `wan` is faithful, `tiny` is many times faster.", "tiny"
    ),
    "Cache-Control": text_header("Whether it may be kept.", "no-store"),
    "ETag": text_header("Names these bytes, for `If-None-Match` and `If-Range`.", '"9f2b4c"'),
    "Accept-Ranges": text_header("Parts can be asked for.", "bytes"),
    "Content-Range": text_header("Which part it is, of how many bytes.", "bytes 0-1023/48213"),
    "Retry-After": {
        "description": "Seconds after which asking again makes sense, where it does.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 10,
    },
    "Allow": text_header("The methods of this address.", "GET, HEAD, OPTIONS"),
    "WWW-Authenticate": text_header("What is asked for.", "Bearer"),
}
"""All headers that the document tells of."""
