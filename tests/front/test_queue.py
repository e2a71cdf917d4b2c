"""Who waits for a place: whoever has been served least goes first."""

from dataclasses import replace

from engine.front.queue import STEPS_BACK, Queue
from engine.front.video import Video
from tests.front.making import request, video


class Line:
    """A queue, and all who run or wait."""

    def __init__(self) -> None:
        self.live: dict[Video, None] = {}
        self.queue = Queue(self.live)

    def come(self, *names: str) -> list[Video]:
        """Videos named ``a1``: the owner, and which of its videos."""
        videos = [video(name, replace(request(), owner=name[0])) for name in names]
        for one in videos:
            self.live[one] = None
            self.queue.add(one)
            self.queue.prepared(one)
        return videos

    def start(self, count: int) -> list[str]:
        started = []
        for _ in range(count):
            first = self.queue.first()
            assert first is not None
            self.queue.drop(first)
            started.append(first.id)
        return started


def test_videos_of_one_owner_go_as_they_came() -> None:
    line = Line()
    line.come("a1", "a2", "a3")
    assert line.start(3) == ["a1", "a2", "a3"] and line.queue.first() is None


def test_without_owners_all_go_as_they_came() -> None:
    line = Line()
    nobodys = [video(str(number), request()) for number in range(20)]
    for one in nobodys:
        line.live[one] = None
        line.queue.add(one)
        line.queue.prepared(one)
    assert line.start(20) == [one.id for one in nobodys]


def test_a_newcomer_goes_before_the_third_of_another() -> None:
    line = Line()
    line.come(*(f"a{number}" for number in range(1, 9)))
    assert line.start(2) == ["a1", "a2"]
    newcomer, again = line.come("b1", "b2")
    assert [line.queue.position(one) for one in (newcomer, again)] == [1, 2]
    assert line.start(4) == ["b1", "b2", "a3", "a4"]


def test_only_so_many_can_overtake() -> None:
    line = Line()
    line.come("a1", "a2")
    started = []
    for owner in "bcdefghijklm":
        line.come(f"{owner}1")
        started += line.start(1)
    assert started.index("a1") == 0 and started.index("a2") == STEPS_BACK


def test_places_are_told_when_they_change() -> None:
    line = Line()
    queue = line.queue
    first, second = line.come("a1", "a2")
    assert queue.tell_positions() == [first, second] and queue.tell_positions() == []
    (third,) = line.come("b1")
    assert [queue.position(one) for one in (first, third, second)] == [1, 2, 3]
    assert queue.tell_positions() == [third, second]
    queue.drop(first)
    queue.drop(first)
    assert [one.request.owner for one in queue.tell_positions()] == ["b", "a"] and queue.position(first) is None
    assert [wanted.owner for wanted in queue.requests] == ["b", "a"] and len(queue) == 2


def test_one_whose_prompt_is_not_embedded_is_passed_over() -> None:
    line = Line()
    late = video("a1", request())
    line.queue.add(late)
    line.come("b1")
    assert line.start(1) == ["b1"]
    line.queue.prepared(late)
    assert line.queue.first() is late
