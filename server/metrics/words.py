"""What metrics call the refusals and the ends of videos."""

from enum import StrEnum


class Rejection(StrEnum):
    """Why a request for a video was refused, as metrics call it."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    CLIENT_LIMIT = "client_limit"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DRAINING = "draining"
    NOT_READY = "not_ready"
    VALIDATION = "validation"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"


class Finish(StrEnum):
    """How a video ended, as metrics call it."""

    COMPLETED = "completed"
    LIMIT = "limit"
    DRAIN = "drain"
    CLIENT_DISCONNECT = "client_disconnect"
    CLIENT_CANCEL = "client_cancel"
    SLOW_CLIENT = "slow_client"
    PAUSE_LIMIT = "pause_limit"
    TIMEOUT = "timeout"
    ENGINE_ERROR = "engine_error"
    INTERNAL_ERROR = "internal_error"
