"""How many videos are where. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.front.admission import HOLDING
from engine.front.video import Video, VideoState


@dataclass(frozen=True, kw_only=True)
class Census:
    """Counts of videos that have not ended."""

    running: int
    """They hold pages, or held some until their group was lost."""
    waiting: int
    readers: int
    blocks_buffered: int
    """Blocks that no reader has taken yet."""


def census(live: Iterable[Video]) -> Census:
    """Count them."""
    videos = list(live)
    return Census(
        running=sum(video.state in HOLDING | {VideoState.RECOVERING} for video in videos),
        waiting=sum(video.state == VideoState.QUEUED for video in videos),
        readers=sum(len(video.readers) for video in videos),
        blocks_buffered=sum(video.progress.done - video.progress.taken for video in videos),
    )
