"""What succeeds, and the errors that operations have in common."""

from pydantic import BaseModel

from server.document.operation import Guard, Media, Operation, Success
from server.videos.resource import VideoAnswer

ANYWHERE = (400, 408, 413)
"""Answers to a request that is none, or whose body is too long or too slow."""
BEFORE = (414, 431, 503)
"""Answers before any application: to an address or headers that are too long, and to too many connections."""
_GUARDED = {
    Guard.PROBE: (),
    Guard.OPEN: (403, 421),
    Guard.VIEWER: (401, 403, 421, 429),
    Guard.KEY: (401, 403, 421, 429),
}
MAKING = (415, 429, 503)
"""What may keep a video from being made."""
MP4 = Media(type="video/mp4")

STREAM = Success(
    description="Fragmented MP4, sent while it is made.",
    media=(MP4,),
    headers=("X-Video-Id", "Location", "X-Decoder", "Cache-Control"),
)
CREATED = Success(description="The video, before anything is made.", model=VideoAnswer, headers=("Location",))
CONTENT = (
    Success(
        description="The file of an ended video; of one that is being made, fragments as they come; or a picture.",
        media=(MP4, Media(type="image/webp"), Media(type="image/jpeg")),
        headers=("ETag", "Accept-Ranges", "Cache-Control", "X-Video-Id"),
    ),
    Success(
        status=206,
        description="The part of the file that `Range` names.",
        media=(MP4,),
        headers=("Content-Range", "ETag", "Accept-Ranges", "Cache-Control"),
    ),
    Success(
        status=304,
        description="The client has it: `If-None-Match` names its `ETag`.",
        headers=("ETag", "Accept-Ranges", "Cache-Control"),
    ),
)


def json(model: type[BaseModel], description: str) -> Success:
    """A JSON answer."""
    return Success(description=description, model=model)


def text(media_type: str, description: str) -> Success:
    """An answer in lines of text, which changes."""
    return Success(description=description, media=(Media(type=media_type, is_text=True),), headers=("Cache-Control",))


def events(data: type[BaseModel], description: str) -> Success:
    """Server-sent events."""
    media = Media(type="text/event-stream", is_text=True, data=data)
    return Success(description=description, media=(media,), headers=("Cache-Control",))


def playlist() -> Success:
    """A playlist of HLS."""
    return text("application/vnd.apple.mpegurl", "The playlist.")


def segment(description: str) -> Success:
    """A file of HLS, which stays as it is."""
    return Success(description=description, media=(MP4,), headers=("Cache-Control",))


def errors_of(operation: Operation, *, from_application: bool = False) -> list[int]:
    """All statuses of errors, in order. ``from_application``: without those that come before it is asked."""
    before = () if from_application else BEFORE
    return sorted({*ANYWHERE, *before, *_GUARDED[operation.guard], *operation.errors})
