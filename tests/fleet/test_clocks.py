"""Times of another node on our clock."""

import pytest

from engine.fleet.clocks import DRIFT, ClockOfNode
from engine.messages import Beat, Idle, VideoClosed
from engine.trace import Phase, Rests, Span

BEHIND_S = 5000.0
"""Our clock shows more than the node's by so much."""


class Link:
    """A node whose messages take a while."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.clock = ClockOfNode(lambda: self.now)

    def send(self, *ended_s: float, after_s: float) -> list[tuple[float, float]]:
        """Spans of a second that ended at these times of ours, arriving so long after the last. Returns what is made
        of them."""
        spans = [
            Span(phase=Phase.SEND, rank=1, stage=None, video="a", block=0, began_s=end - 1, ended_s=end)
            for end in (moment - BEHIND_S for moment in ended_s)
        ]
        self.now = max(ended_s) + after_s
        message = self.clock.on_ours(Idle(spans=tuple(spans), rests=Rests()))
        assert isinstance(message, Idle)
        return [(span.began_s, span.ended_s) for span in message.spans]


def test_the_quickest_message_tells_how_far_the_clocks_are_apart() -> None:
    link = Link()
    assert link.send(9_000.0, after_s=0.5) == [(8_999.5, 9_000.5)]
    assert link.send(9_001.0, 9_002.0, after_s=0.25) == [(9_000.25, 9_001.25), (9_001.25, 9_002.25)]
    (late,) = link.send(9_003.0, after_s=2.0)
    assert late == pytest.approx((9_002.25, 9_003.25), abs=3 * DRIFT), "a slow message changes nothing"


def test_clocks_that_drift_are_followed() -> None:
    link = Link()
    link.send(9_000.0, after_s=0.0)
    (slower,) = link.send(99_000.0, after_s=9.5)
    assert slower[1] == 99_000.0 + 90_009.5 * DRIFT
    (again,) = link.send(99_001.0, after_s=-3.0)
    assert again[1] == 98_998.0


def test_other_messages_are_as_they_were() -> None:
    clock = ClockOfNode(lambda: 0.0)
    for message in (
        VideoClosed(video="a", pages_used=0),
        Beat(tickets_passed=1, pages_used=0, spans=(), rests=Rests()),
    ):
        assert clock.on_ours(message) is message
