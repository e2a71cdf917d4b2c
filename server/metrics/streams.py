"""What one video stream adds to the metrics, from its opening to its end. Knows no bytes and no video."""

import time

from server.errors import Finish
from server.metrics.families import Families

_PROTOCOL = "fmp4"


class StreamRecord:
    """Made when the request comes; ``ended`` is called once, however it ends."""

    def __init__(self, families: Families) -> None:
        self._viewers, self._videos = families.viewers, families.videos
        self._errors = families.engine.errors
        self._began_s = time.monotonic()
        self._delivered_s = 0.0

    def sent(self, num_bytes: int, blocked_s: float) -> None:
        """Bytes went out, after waiting for the client."""
        self._viewers.sent_bytes.labels(_PROTOCOL).inc(num_bytes)
        self._viewers.send_blocked.inc(blocked_s)

    def first_segment_sent(self) -> None:
        """The viewer can begin."""
        self._viewers.first_segment.observe(time.monotonic() - self._began_s)

    def delivered(self, duration_s: float) -> None:
        """A segment was sent."""
        self._delivered_s += duration_s
        self._viewers.video_delivered.labels(_PROTOCOL).inc(duration_s)

    def failed(self, code: str) -> None:
        """The engine gave up on it."""
        self._errors.labels("video", code).inc()

    def ended(self, reason: Finish) -> None:
        """It is over."""
        self._videos.finished.labels(reason).inc()
        self._videos.duration.observe(time.monotonic() - self._began_s)
        self._videos.video.observe(self._delivered_s)
