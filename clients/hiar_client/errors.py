"""All that can go wrong, as exceptions.

HiarError
├── ServerError                 the server said so; each class is one ``code`` of its answers
│   ├── InvalidRequest, Unauthorized, Forbidden (StorageLimit), NotFound, Conflict, Gone, TooLarge, ...
│   ├── RateLimited, Overloaded, PromptReplaced, TooEarly: ask again after ``retry_after_s``
│   ├── Unavailable             the server cannot do it now (Starting, Draining, Refused, LateBlock)
│   └── VideoFailed             a video could not be finished (WorkerLost, OutOfMemory, ...)
├── Unreachable                 no server answers, or the connection broke before it did
├── StreamCut                   a stream ended without notice and was not to be resumed
├── StreamLost                  it was, and could not be; says how far it came
├── StillRunning                a video had not ended when it was no longer waited for
└── BadStream, UnexpectedAnswer, BadUrl, BadMedia, ExtraMissing
"""


class HiarError(Exception):
    """Anything that this package raises."""

    code = "error"
    """Stable and machine readable."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        """The field of the request that is at fault."""
        self.status = status
        """Of the HTTP answer; None where there was none."""
        self.request_id = request_id
        """What the server's log knows the request by."""
        self.retry_after_s = retry_after_s
        """When asking again makes sense, where the server said so."""
        self.retryable = retryable
        """Whether asking again may succeed."""


class ServerError(HiarError):
    """The server refused or failed. This class itself: with a code that this version of the client does not know."""

    code = "server_error"


class InvalidRequest(ServerError):
    """``param`` names the field, the message says what it takes."""

    code = "invalid_request"


class Unauthorized(ServerError):
    """No key, an unknown key, or a viewer token that has expired."""

    code = "unauthorized"


class Forbidden(ServerError):
    """The key may not do this."""

    code = "forbidden"


class StorageLimit(Forbidden):
    """The key's stored videos take all the bytes that it may have."""

    code = "storage_limit"


class RequestTimeout(ServerError):
    """The request did not arrive in time."""

    code = "request_timeout"


class TooLarge(ServerError):
    """The body has too many bytes."""

    code = "payload_too_large"


class UnsupportedMediaType(ServerError):
    """The body is of a kind that the server does not take."""

    code = "unsupported_media_type"


class MethodNotAllowed(ServerError):
    """The address does not answer this method."""

    code = "method_not_allowed"


class NotFound(ServerError):
    """There is no such video, block or model, or it is another key's."""

    code = "not_found"


class Conflict(ServerError):
    """The video is not in a state for this."""

    code = "conflict"


class Gone(ServerError):
    """The block or the video is kept no longer."""

    code = "gone"


class RangeNotSatisfiable(ServerError):
    """The file has no such part."""

    code = "range_not_satisfiable"


class UriTooLong(ServerError):
    """The address is too long."""

    code = "uri_too_long"


class HeadersTooLarge(ServerError):
    """The headers are too long."""

    code = "headers_too_large"


class UnsupportedVersion(ServerError):
    """The server does not speak this version of HTTP."""

    code = "unsupported_version"


class UnknownHost(ServerError):
    """The server does not go by the name of ``url``; its operator can allow it."""

    code = "unknown_host"


class TooEarly(ServerError):
    """The block, or a picture of it, is not there yet."""

    code = "too_early"


class RateLimited(ServerError):
    """Too many requests, videos or new prompts."""

    code = "rate_limited"


class Overloaded(ServerError):
    """No place was free."""

    code = "overloaded"


class PromptReplaced(ServerError):
    """A newer prompt of the same video took the place of this one."""

    code = "prompt_replaced"


class Unavailable(ServerError):
    """The server cannot do it now; its engine is restarting, or has failed."""

    code = "engine_unavailable"


class Starting(Unavailable):
    """The model is loading."""

    code = "starting"


class Draining(Unavailable):
    """The server is being stopped."""

    code = "draining"


class Refused(Unavailable):
    """The server cannot take the video now."""

    code = "refused"


class LateBlock(Unavailable):
    """The block did not come in time."""

    code = "late_block"


class FirstFragmentTimeout(ServerError):
    """The video's first block did not come in time."""

    code = "first_segment_timeout"


class VideoFailed(ServerError):
    """The video failed while it was made."""

    code = "engine_error"


class CorruptLatents(VideoFailed):
    """The model made numbers that are no picture; another seed or prompt may help."""

    code = "corrupt_latents"


class OutOfMemory(VideoFailed):
    """The server's device had no memory left for the video."""

    code = "engine_oom"


class EncoderFailed(VideoFailed):
    """The encoder of the video failed."""

    code = "encoder_failed"


class WorkerLost(VideoFailed):
    """A worker of the server died and the video could not go on."""

    code = "worker_lost"


class ModelChanged(VideoFailed):
    """The video was begun with another model than the server now has."""

    code = "model_changed"


class StorageFailed(VideoFailed):
    """The server could not store the video."""

    code = "storage_failed"


class StorageFull(VideoFailed):
    """The server has no room to store the video."""

    code = "storage_full"


class InternalError(ServerError):
    """The server has a bug; its log tells of it under ``request_id``."""

    code = "internal_error"


class Unreachable(HiarError):
    """No server answers, or the connection broke before it did."""

    code = "unreachable"


class StreamCut(HiarError):
    """A stream ended without notice."""

    code = "stream_cut"


class StreamLost(HiarError):
    """A stream was cut and could not be resumed. ``__cause__`` says why; what was read until then stays good."""

    code = "stream_lost"

    def __init__(self, message: str, *, next_block: int = 0, seconds_done: float = 0.0) -> None:
        super().__init__(message)
        self.next_block = next_block
        """The first block that did not come: ``Client.watch`` may go on there later."""
        self.seconds_done = seconds_done
        """Length of what came."""


class StillRunning(HiarError):
    """A video had not ended when it was no longer waited for. It goes on."""

    code = "still_running"


class BadStream(HiarError):
    """The answer is no MP4 stream."""

    code = "bad_stream"


class UnexpectedAnswer(HiarError):
    """The answer is not one of a HiAR server."""

    code = "unexpected_answer"


class BadUrl(HiarError):
    """``url`` is no address of a server."""

    code = "bad_url"


class BadMedia(HiarError):
    """A picture or clip of this machine cannot be read."""

    code = "bad_media"


class ExtraMissing(HiarError):
    """A package is not installed that this needs; the message says how to install it."""

    code = "extra_missing"
