"""Who may start where: pages, and the rate that realtime videos need of a chain (design, law 9).

A realtime session takes a share of its chain: the time its blocks need, as planned from measured costs, over the time
they play. Shares that would add up to more than the chain has are refused, so that nobody's picture stands still for a
newcomer. A session of pace ``fast`` has no deadlines, takes what is left and needs only pages. A chain that makes
nothing takes any session: a machine too slow for one realtime video still serves it, as fast as it can. Pure.
"""

from collections.abc import Iterable

from engine.config import EngineConfig
from engine.front.session import Session, SessionState
from engine.law.placement import Plan
from engine.law.schedule import frames_in_block
from engine.request import Pace, SessionRequest

FULL = 0.95
"""Of a chain's planned rate; the rest is for what the plan cannot see."""

DEFAULT_RETRY_S = 10.0

HOLDING = frozenset({SessionState.RUNNING, SessionState.CLOSING})


def share(config: EngineConfig, plan: Plan, chain: int, request: SessionRequest) -> float:
    """The part of a chain's time that a session needs to be in time: 0 for one without deadlines."""
    if request.pace == Pace.FAST:
        return 0.0
    width_px, height_px = config.manifest.video.sizes[0]
    size = request.width_px * request.height_px / (width_px * height_px)
    plays_s = frames_in_block(config.manifest.rollout, 1) / request.fps
    return size * plan.block_s(chain) / plays_s


def chain_with_room(
    config: EngineConfig, plan: Plan, sessions: Iterable[Session], request: SessionRequest
) -> int | None:
    """The chain that a session should start on, the least busy one; None when it has to wait."""
    return _least_busy(config, plan, _held(sessions), request)


def num_startable(
    config: EngineConfig, plan: Plan, sessions: Iterable[Session], waiting: Iterable[SessionRequest]
) -> int:
    """How many of those who wait, in order, could start at once."""
    held = _held(sessions)
    count = 0
    for request in waiting:
        chain = _least_busy(config, plan, held, request)
        if chain is None:
            break
        held.append((chain, request))
        count += 1
    return count


Held = list[tuple[int, SessionRequest]]
"""Chain and request of each session that holds pages."""


def _held(sessions: Iterable[Session]) -> Held:
    return [(s.chain, s.request) for s in sessions if s.state in HOLDING and s.chain is not None]


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


def num_inflight(sessions: Iterable[Session], chain: int) -> int:
    """Blocks in a chain that somebody waits for."""
    here = [s for s in sessions if s.state in HOLDING and s.chain == chain and not s.has_outcome]
    return sum(session.progress.num_inflight for session in here)


def retry_after_s(sessions: Iterable[Session]) -> float:
    """When a place may be free: the shortest remaining video, or a guess when all are endless."""
    remaining = [
        s.progress.start_s(s.progress.num_blocks) - s.progress.start_s(s.progress.done)
        for s in sessions
        if s.progress.num_blocks is not None and s.state != SessionState.QUEUED
    ]
    return max(1.0, min(remaining, default=DEFAULT_RETRY_S))
