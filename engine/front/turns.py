"""Places and turns on the chains of one group: who may start where, and whose block goes next (design, law 9).

Kept as videos change, so that no question costs more than the logarithm of their number: for each chain how many
places, how much of its rate and how many blocks in flight are taken, and heaps of the videos that may go. A video that
changed leaves its old entries behind; they are dropped when they come up. Pure; times are given.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from engine.engine_config import EngineConfig
from engine.front.admission import FULL, HOLDING, share
from engine.front.pacing import ready_at, urgency
from engine.front.video import Turn, Video, VideoState
from engine.law.placement import Plan
from engine.request import VideoRequest

Entry = tuple[tuple[bool, int, float], int, int, Video]
"""Urgency, a number that no other entry has, the turn's number, and whose it is."""


@dataclass
class ChainLoad:
    """What is taken of one chain."""

    num_held: int = 0
    share: float = 0.0
    """Of its time, by realtime videos."""
    num_inflight: int = 0
    """Blocks in it that somebody waits for."""
    ready: list[Entry] = field(default_factory=list)
    """A heap: videos whose next block may go now."""


class Turns:
    """All chains of one group."""

    def __init__(self, config: EngineConfig, plan: Plan) -> None:
        self._config, self._plan = config, plan
        self._loads = [ChainLoad() for _ in plan.chains]
        self._later: list[tuple[float, int, int, Video]] = []
        """A heap: when each video's block may go that waits for time alone."""
        self._entries = itertools.count()

    def room(self, request: VideoRequest) -> int | None:
        """The chain that a video should start on, the least busy one; None when it has to wait."""
        return self._least_busy([(load.num_held, load.share) for load in self._loads], request)

    def num_startable(self, line: Iterable[VideoRequest]) -> int:
        """How many of those who wait, in order, could start at once."""
        taken = [(load.num_held, load.share) for load in self._loads]
        for count, request in enumerate(line):
            chain = self._least_busy(taken, request)
            if chain is None:
                return count
            num_held, shares = taken[chain]
            taken[chain] = num_held + 1, shares + share(self._config, self._plan, chain, request)
        return count + 1

    def note(self, video: Video, now: float) -> None:
        """Something about a video changed."""
        turn, holds = video.turn, video.state in HOLDING
        if turn.chain is not None and not holds:
            self._leave(turn)
        elif turn.chain is None and holds:
            self._enter(video, turn)
        if turn.chain is None:
            turn.number += 1
            return
        load = self._loads[turn.chain]
        inflight = 0 if video.has_outcome else video.progress.num_inflight
        load.num_inflight += inflight - turn.num_inflight
        turn.num_inflight = inflight
        self._line_up(video, turn, load, now)

    def next(self, now: float) -> Video | None:
        """Whose block goes now: the most urgent one whose chain has room. It has to be noted when it went.

        What waits in front of a chain can be overtaken by a more urgent video's; what is in it cannot.
        """
        while self._later and self._later[0][0] <= now:
            _, _, number, video = heappop(self._later)
            if number == video.turn.number and video.turn.chain is not None:
                self._push(video, self._loads[video.turn.chain])
        loads = [load for chain, load in enumerate(self._loads) if self._has_room(chain, load)]
        best = min((load for load in loads if _top(load) is not None), key=lambda load: load.ready[0][:2], default=None)
        if best is None:
            return None
        video = heappop(best.ready)[3]
        video.turn.place = None
        return video

    @property
    def next_at(self) -> float | None:
        """When the next block may go that waits for time alone."""
        while self._later and self._later[0][2] != self._later[0][3].turn.number:
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def _least_busy(self, taken: list[tuple[int, float]], request: VideoRequest) -> int | None:
        open_chains = []
        for chain, (num_held, shares) in enumerate(taken):
            needed = share(self._config, self._plan, chain, request)
            has_rate = needed == 0 or shares == 0 or shares + needed <= FULL
            if num_held < self._config.max_videos and has_rate:
                open_chains.append((shares, num_held, chain))
        return min(open_chains)[2] if open_chains else None

    def _enter(self, video: Video, turn: Turn) -> None:
        assert video.chain is not None, f"video {video.id} has no chain"
        turn.chain, turn.share = video.chain, share(self._config, self._plan, video.chain, video.request)
        load = self._loads[turn.chain]
        load.num_held, load.share = load.num_held + 1, load.share + turn.share

    def _leave(self, turn: Turn) -> None:
        assert turn.chain is not None
        load = self._loads[turn.chain]
        load.num_held, load.num_inflight = load.num_held - 1, load.num_inflight - turn.num_inflight
        # An empty chain takes any video, so what rounding leaves must not look like a share.
        load.share = load.share - turn.share if load.num_held else 0.0
        turn.chain, turn.num_inflight, turn.place = None, 0, None

    def _line_up(self, video: Video, turn: Turn, load: ChainLoad, now: float) -> None:
        moment = ready_at(video.progress, self._config) if video.state == VideoState.RUNNING else None
        place = None if moment is None else (moment, *urgency(video.progress))
        if place == turn.place:
            return  # it stands where it should
        turn.place, turn.number = place, turn.number + 1
        if moment is None:
            return
        if moment <= now:
            self._push(video, load)
        else:
            heappush(self._later, (moment, next(self._entries), turn.number, video))

    def _push(self, video: Video, load: ChainLoad) -> None:
        heappush(load.ready, (urgency(video.progress), next(self._entries), video.turn.number, video))

    def _has_room(self, chain: int, load: ChainLoad) -> bool:
        return load.num_inflight < self._config.inflight_limit(len(self._plan.chains[chain]))


def _top(load: ChainLoad) -> Entry | None:
    """The most urgent video of a chain, once entries of the past are dropped."""
    while load.ready and load.ready[0][2] != load.ready[0][3].turn.number:
        heappop(load.ready)
    return load.ready[0] if load.ready else None
