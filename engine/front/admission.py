"""The rate that realtime videos need of a chain, and when to ask again (design, law 9).

A realtime video takes a share of its chain: the time its blocks need, as planned from measured costs, over the time
they play. Shares that would add up to more than the chain has are refused, so that nobody's picture stands still for a
newcomer. A video of pace ``fast`` has no deadlines, takes what is left and needs only pages. A chain that makes
nothing takes any video: a machine too slow for one realtime video still serves it, as fast as it can. Pure.
"""

from collections.abc import Iterable

from engine.engine_config import EngineConfig
from engine.front.video import Video, VideoState
from engine.law.placement import Plan
from engine.law.schedule import frames_in_block
from engine.request import Pace, VideoRequest

FULL = 0.95
"""Of a chain's planned rate; the rest is for what the plan cannot see."""

DEFAULT_RETRY_S = 10.0

HOLDING = frozenset({VideoState.RUNNING, VideoState.CLOSING})


def share(config: EngineConfig, plan: Plan, chain: int, request: VideoRequest) -> float:
    """The part of a chain's time that a video needs to be in time: 0 for one without deadlines."""
    if request.pace == Pace.FAST:
        return 0.0
    width_px, height_px = config.manifest.video.sizes[0]
    size = request.width_px * request.height_px / (width_px * height_px)
    plays_s = frames_in_block(config.manifest.rollout, 1) / request.fps
    return size * plan.block_s(chain) / plays_s


def retry_after_s(videos: Iterable[Video]) -> float:
    """When a place may be free: the shortest remaining video, or a guess when all are endless."""
    remaining = [
        s.progress.start_s(s.progress.num_blocks) - s.progress.start_s(s.progress.done)
        for s in videos
        if s.progress.num_blocks is not None and s.state not in {VideoState.QUEUED, VideoState.SLEEPING}
    ]
    return max(1.0, min(remaining, default=DEFAULT_RETRY_S))
