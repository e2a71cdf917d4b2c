"""Every way the engine can refuse or fail, as types. Knows nothing of HTTP; the server maps them once.

HiarError                     code, message, retryable
+-- RequestError              the caller's fault; names the field
|   +-- UnknownVideo          no such video, or it is forgotten
|   +-- Conflict              the video is not in a state for it
|   +-- BlockGone             a block that is not kept any more, or never comes
+-- Refused                   not now: ask again after ``retry_after_s``
|   +-- Overloaded            the queue is full
|   +-- PromptReplaced        a newer prompt of the same video came first
|   +-- BlockTooEarly         a block too far ahead of the newest
|   +-- EngineUnavailable     starting, restarting, draining, failed or stopped
+-- VideoFailed             the engine could not go on with one video
|   +-- CorruptLatents        a block held NaN or infinity
|   +-- EngineOutOfMemory     the device had no memory left for it
|   +-- EncoderFailed         the video encoder gave up on it
|   +-- WorkerLost            the worker that ran it died or hung
|   |   +-- EngineStopped     no worker will run it any more
|   +-- ModelChanged          the model that is served now does not make it
|   +-- StorageFailed         it could not be stored
|       +-- StorageFull       there was no room to store it
+-- StartError                the engine cannot start as configured
    +-- WeightsError          a weight file is absent, truncated or does not fit the model
    +-- StartOutOfMemory      a device had no memory left for what it was to hold
"""

import os


class HiarError(Exception):
    """Base of all typed errors. ``code`` is stable and machine readable; the message is for people."""

    code = "internal_error"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(HiarError):
    """The request cannot be served as asked; ``param`` names the field at fault."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownVideo(RequestError):
    """No video has this id."""

    code = "not_found"


class Conflict(RequestError):
    """What is asked of a video does not go with its state."""

    code = "conflict"


class BlockGone(RequestError):
    """A block cannot be read any more: it is not kept, or the video ended before it."""

    code = "gone"


class Refused(HiarError):
    """The engine takes no new work now."""

    code = "refused"
    retryable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Refused):
    """All pages are taken and the queue is full."""

    code = "overloaded"


class PromptReplaced(Refused):
    """A newer prompt of the same video came before this one's turn."""

    code = "prompt_replaced"


class BlockTooEarly(Refused):
    """A block is too far ahead of the newest one to wait for it."""

    code = "too_early"


class EngineUnavailable(Refused):
    """The engine takes no new work; ``code`` is the state it is in."""

    code = "engine_unavailable"

    def __init__(self, message: str, retry_after_s: float, code: str) -> None:
        super().__init__(message, retry_after_s)
        self.code = code


class VideoFailed(HiarError):
    """One video ended by the engine's fault."""

    code = "engine_error"
    retryable = True


class CorruptLatents(VideoFailed):
    """A block came out as NaN or infinity."""

    code = "corrupt_latents"
    retryable = False


class EngineOutOfMemory(VideoFailed):
    """The device had no memory left for the video's pass; the others go on."""

    code = "engine_oom"


class EncoderFailed(VideoFailed):
    """The video encoder raised an error or lost a frame."""

    code = "encoder_failed"


class WorkerLost(VideoFailed):
    """The worker that held the video died or made no progress in time."""

    code = "worker_lost"


class EngineStopped(WorkerLost):
    """The engine was stopped, or serves no more, while the video ran or waited."""


class ModelChanged(VideoFailed):
    """The video was begun by another model than the one that is served now, which cannot go on with it."""

    code = "model_changed"
    retryable = False


class StorageFailed(VideoFailed):
    """The video could not be stored."""

    code = "storage_failed"


class StorageFull(StorageFailed):
    """There was no room to store the video."""

    code = "storage_full"


class StartError(HiarError):
    """The engine cannot start: a setting, a device or a file is wrong."""

    code = "start_failed"


class WeightsError(StartError):
    """A weight file does not hold what the model needs; the message names every tensor at fault."""

    code = "bad_weights"


class StartOutOfMemory(StartError):
    """A device had no memory left for what it was to hold."""

    code = "start_out_of_memory"


VIDEO_FAILURES: dict[str, type[VideoFailed]] = {
    kind.code: kind for kind in (VideoFailed, CorruptLatents, EngineOutOfMemory, EncoderFailed, WorkerLost)
}
"""How a failure that crossed a process boundary as its code becomes an exception again."""

START_FAILURES: dict[str, type[StartError]] = {kind.code: kind for kind in (StartError, WeightsError, StartOutOfMemory)}
"""The same for a start."""


def unread(error: OSError) -> str:
    """Why the system did not let a file be read, and what to do where that is plain."""
    if isinstance(error, PermissionError):
        return f"permission denied to user {os.geteuid()}; let it read that, and enter the folders above"
    return (error.strerror or str(error)).lower()
