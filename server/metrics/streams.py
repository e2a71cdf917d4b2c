"""What one video stream adds to the metrics. Knows no bytes and no video."""

import time

from server.metrics.families import Families, ViewerFamilies

_PROTOCOL, _HLS = "fmp4", "hls"


class StreamRecord:
    """Made when the request comes."""

    def __init__(self, families: Families, *, is_callers: bool) -> None:
        """``is_callers``: the stream answers the request that made the video."""
        self._viewers = families.viewers
        self.is_callers = is_callers
        self._began_s = time.monotonic()

    def sent(self, num_bytes: int, blocked_s: float) -> None:
        """Bytes went out, after waiting for the client."""
        self._viewers.sent_bytes.labels(_PROTOCOL).inc(num_bytes)
        self._viewers.send_blocked.inc(blocked_s)

    def first_segment_sent(self) -> None:
        """The viewer can begin. Who joined later did not wait for the first block."""
        if self.is_callers:
            self._viewers.first_segment.observe(time.monotonic() - self._began_s)

    def delivered(self, duration_s: float) -> None:
        """A segment was sent."""
        self._viewers.video_delivered.labels(_PROTOCOL).inc(duration_s)


def count_hls_segment(viewers: ViewerFamilies, num_bytes: int, duration_s: float) -> None:
    """A player of HLS got one."""
    viewers.sent_bytes.labels(_HLS).inc(num_bytes)
    viewers.video_delivered.labels(_HLS).inc(duration_s)
