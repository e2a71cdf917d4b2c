"""The boxes the server itself adds to a video stream: signals and keep-alive.

Knows nothing of media. Players must skip boxes they do not know, so both are safe between fragments.
"""

import json
import struct
from typing import Any

SIGNAL_UUID = bytes.fromhex("6b1f0c5e92d84f3a8e47a1c0d95b7e26")
"""Type of our ``uuid`` boxes. Part of the API: clients compare all 16 bytes."""

KEEP_ALIVE = struct.pack(">I4s", 8, b"free")
"""An empty box: resets timers on the way and in the player."""


def end_box(reason: str, last_block: int) -> bytes:
    """The last box of a stream that ended as it should. ``last_block`` is -1 if there was none."""
    return _signal({"type": "end", "reason": reason, "last_block": last_block})


def error_box(code: str, message: str, *, retryable: bool, last_block: int) -> bytes:
    """The last box of a stream that broke; the connection is aborted after it."""
    payload = {"type": "error", "code": code, "message": message, "retryable": retryable, "last_block": last_block}
    return _signal(payload)


def _signal(payload: dict[str, Any]) -> bytes:
    body = SIGNAL_UUID + json.dumps(payload).encode("ascii")
    return struct.pack(">I4s", 8 + len(body), b"uuid") + body
