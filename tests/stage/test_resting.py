"""A worker that has nothing to do: it says that it lives, and for how long it rested."""

import queue
from typing import Any

import pytest

from engine.messages import Shutdown
from engine.stage import worker

pytestmark = pytest.mark.in_time


class RestingLane:
    """Wants to be heard three times, then leaves."""

    def __init__(self, inbox: worker.Inbox) -> None:
        self._inbox = inbox
        self.rests_s: list[float] = []
        self.num_idles = 0

    def rested(self, seconds: float) -> None:
        self.rests_s.append(seconds)

    def tell_idle(self) -> None:
        self.num_idles += 1
        if self.num_idles == 3:
            self._inbox.put(Shutdown())


def test_a_worker_at_rest_tells_it_until_a_message_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_BEAT_S", 0.01)
    inbox: worker.Inbox = queue.SimpleQueue()
    lane: Any = RestingLane(inbox)
    worker.serve(lane, inbox)
    assert lane.num_idles == 3
    assert len(lane.rests_s) == 4 and min(lane.rests_s[:3]) >= 0.009  # the last rest ends with the message
