"""Arrivals that do not wait for answers, at several loads, on a fake clock: the desk, and a chain of known rate."""

from dataclasses import dataclass, field

import pytest

from engine.errors import Overloaded
from engine.front.video import Video, VideoState
from engine.messages import BlockTicket
from engine.request import Pace
from tests.front import making
from tests.front.desk_stage import Stage

BLOCK_S = 0.25
"""A block's time in the chain, which makes one at a time."""
VIDEO = making.request(Pace.FAST, seconds=2.0)
MAX_VIDEOS, MAX_QUEUE = 2, 6
LASTS_S = 300.0


@dataclass
class Load:
    """What came of the arrivals."""

    num_done: int = 0
    num_refused: int = 0
    waits_s: list[float] = field(default_factory=list)
    """From request to first block, of those that were let in."""


class Site:
    def __init__(self) -> None:
        self.stage = Stage(max_videos=MAX_VIDEOS, max_queue=MAX_QUEUE)
        self.stage.serve()
        self.load = Load()
        self._running: dict[Video, float] = {}
        self._num_asked = 0

    def ask(self) -> None:
        self._num_asked += 1
        try:
            video = self.stage.open(f"v{self._num_asked}", VIDEO)
        except Overloaded:
            self.load.num_refused += 1
        else:
            self._running[video] = self.stage.now
            self.stage.embed()

    def make_block(self) -> None:
        """The chain passes tickets until it has made a block, and all readers take what there is."""
        while self.stage.tickets:
            is_block = isinstance(self.stage.tickets[0][1], BlockTicket)
            self.stage.execute(most=1)
            if is_block:
                break
        for video in list(self._running):
            if self.stage.ready(video) and video.progress.taken == 0:
                self.load.waits_s.append(self.stage.now - self._running[video])
            self.stage.take(video)
            if video.state is VideoState.ENDED:
                self.load.num_done += 1
                del self._running[video]


def under(load: float) -> Load:
    """``load``: arrivals over what the chain can make."""
    site, asked = Site(), 0
    began_s = site.stage.now
    while site.stage.now < began_s + LASTS_S:
        while asked < (site.stage.now - began_s) / video_s() * load:
            site.ask()
            asked += 1
        site.stage.now += BLOCK_S
        site.make_block()
    return site.load


def video_s() -> float:
    """What a video takes of the chain."""
    num_blocks = making.video("x", VIDEO).progress.num_blocks
    assert num_blocks is not None
    return num_blocks * BLOCK_S


@pytest.mark.parametrize("load", [0.5, 0.9, 1.1, 2.0])
def test_what_is_made_stays_what_can_be_made_however_many_ask(load: float) -> None:
    found = under(load)
    capacity = LASTS_S / video_s()
    assert found.num_done == pytest.approx(min(load, 1.0) * capacity, rel=0.05)
    assert (found.num_refused == 0) == (load < 1)
    longest_s = (MAX_VIDEOS + MAX_QUEUE + 1) * video_s()
    assert max(found.waits_s) <= longest_s, "who is let in waits for those before it, and for nobody behind it"
