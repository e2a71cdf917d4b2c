"""Keeps what goes wrong in the work on one block of one video from the worker's other videos.

The work of a worker is made of such pieces: a forward, a step, a block's pictures, its fragment. Whatever a piece
raises, its video ends typed and the worker goes on, unless the device itself is lost. What is not about one block, as
tickets, hand-over and pipes, must stay outside: that ends the worker, and the group is replaced.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import EngineOutOfMemory, VideoFailed

logger = logging.getLogger(__name__)


@contextmanager
def confined(purpose: str, device: torch.device) -> Iterator[None]:
    """Make whatever the body raises a failure of the video that it works for.

    Args:
        purpose: what the body does, for people: "decoding block 3".
        device: what it computes on.

    Raises:
        EngineOutOfMemory: the device had no memory left.
        VideoFailed: the body raised it, or something that nobody foresaw, which is its cause then.
        RuntimeError: the device can compute no more; the body's own error.
    """
    try:
        yield
    except VideoFailed:
        raise
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0]
        raise EngineOutOfMemory(f"{device} had no memory left for {purpose} ({reason})") from error
    except Exception as error:  # the one place where anything is caught: other videos must not pay for this one's bug
        if _is_lost(device, error):
            raise
        raise VideoFailed(f"{purpose} failed on {device} ({type(error).__name__})") from error


def log_end(video: str, failure: VideoFailed) -> None:
    """Say that a video ends, with the traceback if nobody foresaw why. Once for each video."""
    unforeseen = failure.__cause__ if type(failure) is VideoFailed else None
    logger.error("video %s ends: %s", video, failure.message, exc_info=unforeseen)


def _is_lost(device: torch.device, error: Exception) -> bool:
    """Whether nothing more can be computed: a CUDA context does not outlive a kernel that went astray.

    Not every library says so in its error, but every later call fails then. Only this thread's stream is waited for:
    in others receives are posted ahead.
    """
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return True
    if device.type != "cuda":
        return False
    try:
        torch.cuda.current_stream(device).synchronize()
    except RuntimeError:
        return True
    return False
