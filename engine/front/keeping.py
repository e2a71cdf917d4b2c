"""Which ended videos still answer: for a time, and as many as have room together. Pure; times are given."""

from collections import deque

from engine.config import RolloutConfig
from engine.engine_config import EngineConfig
from engine.front.steps import STEP_BYTES
from engine.front.story import KEPT
from engine.front.video import Video

RECORD_BYTES = 32 * 1024
"""What a video takes beside its fragments, prompts and steps; bounds their number."""


class Shelf:
    """Ended videos, in the order in which they ended."""

    def __init__(self, config: EngineConfig) -> None:
        self._keep_s, self._kept_bytes = config.keep_s, config.kept_bytes
        self._record_bytes = record_bytes(config.manifest.rollout)
        self._ended: deque[Video] = deque()
        """Some may have been forgotten since."""
        self._num_bytes = 0

    def put(self, video: Video) -> None:
        """A video has ended."""
        self._ended.append(video)
        self._num_bytes += self._bytes_of(video)

    def drop(self, video: Video) -> None:
        """An ended video was forgotten before its time."""
        self._num_bytes -= self._bytes_of(video)

    def overdue(self, now: float) -> list[Video]:
        """Take down those whose time is over or that have no room."""
        overdue = []
        while self._ended and self._is_over(self._ended[0], now):
            video = self._ended.popleft()
            if not video.is_forgotten:
                video.is_forgotten = True
                self.drop(video)
                overdue.append(video)
        return overdue

    @property
    def next_at(self) -> float | None:
        """When the next one's time is over; call it behind ``overdue``."""
        return self._expires_at(self._ended[0]) if self._ended else None

    def _is_over(self, video: Video, now: float) -> bool:
        return video.is_forgotten or self._num_bytes > self._kept_bytes or self._expires_at(video) <= now

    def _expires_at(self, video: Video) -> float:
        assert video.ended_at is not None, f"video {video.id} has not ended"
        return video.ended_at + self._keep_s

    def _bytes_of(self, video: Video) -> int:
        text_bytes = max(video.log.script_bytes, video.story.text_bytes)  # mostly the same texts
        return self._record_bytes + video.log.num_bytes + text_bytes


def record_bytes(rollout: RolloutConfig) -> int:
    """What a video takes beside its fragments and prompts."""
    return RECORD_BYTES + KEPT * rollout.num_stages * STEP_BYTES
