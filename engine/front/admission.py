"""Who may start where, and whose block goes next: pages, rates and deadlines of all videos (design, law 9).

A realtime video takes a share of its chain: the time its blocks need, as planned from measured costs, over the time
they play. Shares that would add up to more than the chain has are refused, so that nobody's picture stands still for a
newcomer. A video of pace ``fast`` has no deadlines, takes what is left and needs only pages. A chain that makes
nothing takes any video: a machine too slow for one realtime video still serves it, as fast as it can. Pure.
"""

from collections.abc import Collection, Iterable

from engine.config import EngineConfig
from engine.front.pacing import ready_at, urgency
from engine.front.video import SessionState, Video
from engine.law.placement import Plan
from engine.law.schedule import frames_in_block
from engine.request import Pace, SessionRequest

FULL = 0.95
"""Of a chain's planned rate; the rest is for what the plan cannot see."""

DEFAULT_RETRY_S = 10.0

HOLDING = frozenset({SessionState.RUNNING, SessionState.CLOSING})


def share(config: EngineConfig, plan: Plan, chain: int, request: SessionRequest) -> float:
    """The part of a chain's time that a video needs to be in time: 0 for one without deadlines."""
    if request.pace == Pace.FAST:
        return 0.0
    width_px, height_px = config.manifest.video.sizes[0]
    size = request.width_px * request.height_px / (width_px * height_px)
    plays_s = frames_in_block(config.manifest.rollout, 1) / request.fps
    return size * plan.block_s(chain) / plays_s


def chain_with_room(config: EngineConfig, plan: Plan, videos: Iterable[Video], request: SessionRequest) -> int | None:
    """The chain that a video should start on, the least busy one; None when it has to wait."""
    return _least_busy(config, plan, _held(videos), request)


def num_startable(config: EngineConfig, plan: Plan, videos: Iterable[Video], waiting: Iterable[SessionRequest]) -> int:
    """How many of those who wait, in order, could start at once."""
    held = _held(videos)
    count = 0
    for request in waiting:
        chain = _least_busy(config, plan, held, request)
        if chain is None:
            break
        held.append((chain, request))
        count += 1
    return count


Held = list[tuple[int, SessionRequest]]
"""Chain and request of each video that holds pages."""


def _held(videos: Iterable[Video]) -> Held:
    return [(s.chain, s.request) for s in videos if s.state in HOLDING and s.chain is not None]


def _least_busy(config: EngineConfig, plan: Plan, held: Held, request: SessionRequest) -> int | None:
    open_chains = []
    for chain in range(len(plan.chains)):
        here = [other for at, other in held if at == chain]
        taken = sum(share(config, plan, chain, other) for other in here)
        needed = share(config, plan, chain, request)
        has_rate = needed == 0 or taken == 0 or taken + needed <= FULL
        if len(here) < config.max_videos and has_rate:
            open_chains.append((taken, len(here), chain))
    return min(open_chains)[2] if open_chains else None


def num_inflight(videos: Iterable[Video], chain: int) -> int:
    """Blocks in a chain that somebody waits for."""
    here = [s for s in videos if s.state in HOLDING and s.chain == chain and not s.has_outcome]
    return sum(video.progress.num_inflight for video in here)


def retry_after_s(videos: Iterable[Video]) -> float:
    """When a place may be free: the shortest remaining video, or a guess when all are endless."""
    remaining = [
        s.progress.start_s(s.progress.num_blocks) - s.progress.start_s(s.progress.done)
        for s in videos
        if s.progress.num_blocks is not None and s.state != SessionState.QUEUED
    ]
    return max(1.0, min(remaining, default=DEFAULT_RETRY_S))


def most_urgent(
    config: EngineConfig, plan: Plan, videos: Collection[Video], now: float
) -> tuple[Video | None, float | None]:
    """Whose block goes next, the most urgent that may go now; if none may, when the first may that time alone delays.

    What waits in front of a chain can be overtaken by a more urgent video's; what is in it cannot.
    """
    running = [v for v in videos if v.state == SessionState.RUNNING and _takes_more(config, plan, videos, v)]
    moments = [(ready_at(v.progress, config, now), v) for v in running]
    ready = [v for moment, v in moments if moment is not None and moment <= now]
    if ready:
        return min(ready, key=lambda v: urgency(v.progress, now)), None
    return None, min((moment for moment, _ in moments if moment is not None), default=None)


def _takes_more(config: EngineConfig, plan: Plan, videos: Iterable[Video], video: Video) -> bool:
    """Whether the video's chain has room for a block."""
    assert video.chain is not None, f"session {video.id} has no chain"
    return num_inflight(videos, video.chain) < config.inflight_limit(len(plan.chains[video.chain]))
