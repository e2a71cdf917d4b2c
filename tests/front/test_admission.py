"""Who may start where: places, shares of a chain's rate, and who is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.engine_config import EngineConfig
from engine.errors import Overloaded
from engine.front.admission import retry_after_s, share
from engine.front.desk import Desk
from engine.front.events import Asked, GroupServes
from engine.front.turns import Turns
from engine.front.video import Turn, Video, VideoState
from engine.law.placement import Plan
from engine.observe import Observer
from engine.request import Pace, VideoRequest
from tests.front import making
from tests.front.making import request, video

CONFIG = making.config(max_videos=4)
PLAN = making.plan(block_s=0.25)  # a block plays for 0.75 s at 16 frames a second: a third of the chain
TWO_CHAINS = making.plan(num_devices=10, block_s=0.25)
FAST = request(Pace.FAST)


def turns(config: EngineConfig, plan: Plan, videos: list[Video]) -> Turns:
    made = Turns(config, plan)
    for one in videos:
        one.turn = Turn()
        made.note(one, 100.0)
    return made


def chain_with_room(config: EngineConfig, plan: Plan, videos: list[Video], wanted: VideoRequest) -> int | None:
    return turns(config, plan, videos).room(wanted)


def num_startable(config: EngineConfig, plan: Plan, videos: list[Video], line: list[VideoRequest]) -> int:
    return turns(config, plan, videos).num_startable(line)


def test_a_share_is_the_time_blocks_need_over_the_time_they_play() -> None:
    assert share(CONFIG, PLAN, 0, request()) == pytest.approx(1 / 3)
    assert share(CONFIG, PLAN, 0, request(fps=24)) == pytest.approx(1 / 2)
    assert share(CONFIG, making.plan(block_s=1.5), 0, request()) == pytest.approx(2.0)


def test_a_smaller_picture_takes_a_smaller_share() -> None:
    assert share(CONFIG, PLAN, 0, request(size_px=96)) == pytest.approx(96 * 96 / (128 * 128) / 3)


def test_a_fast_video_needs_no_share() -> None:
    assert share(CONFIG, making.plan(block_s=100.0), 0, FAST) == 0.0
    slow = making.plan(block_s=0.7)
    running = [video("a", request(), chain=0)]
    assert chain_with_room(CONFIG, slow, running, FAST) == 0
    assert chain_with_room(CONFIG, slow, [video("a", FAST, chain=0)], request()) == 0


@pytest.mark.parametrize("num_running", [0, 1, 2, 3])
def test_realtime_videos_share_a_chain_as_far_as_its_rate_goes(num_running: int) -> None:
    running = [video(str(index), chain=0) for index in range(num_running)]
    assert chain_with_room(CONFIG, PLAN, running, request()) == (0 if num_running < 2 else None)


def test_a_chain_is_not_filled_to_the_last_bit() -> None:
    running = [video("a", chain=0)]
    assert chain_with_room(CONFIG, making.plan(block_s=0.75 * 0.47), running, request()) == 0
    assert chain_with_room(CONFIG, making.plan(block_s=0.75 * 0.48), running, request()) is None


def test_an_empty_chain_takes_any_video() -> None:
    crawling = making.plan(block_s=60.0)
    assert chain_with_room(CONFIG, crawling, [], request()) == 0
    assert chain_with_room(CONFIG, crawling, [video("a", chain=0)], request()) is None


def test_places_are_bounded_for_fast_videos_too() -> None:
    running = [video(str(index), FAST, chain=0) for index in range(4)]
    assert chain_with_room(CONFIG, PLAN, running[:3], FAST) == 0
    assert chain_with_room(CONFIG, PLAN, running, FAST) is None


def test_videos_that_hold_no_pages_take_nothing() -> None:
    ended, lost = video("a", chain=0), video("b", chain=0)
    ended.move(VideoState.ENDED)
    lost.move(VideoState.RECOVERING)
    waiting = [video(str(index)) for index in range(9)]
    assert chain_with_room(CONFIG, PLAN, [ended, lost, *waiting, video("c", chain=0)], request()) == 0


def test_a_closing_video_holds_its_place_until_it_ended() -> None:
    running = [video(str(index), chain=0) for index in range(2)]
    places = turns(CONFIG, PLAN, running)
    for state, room in ((VideoState.CLOSING, None), (VideoState.ENDED, 0)):
        running[0].move(state)
        places.note(running[0], 100.0)
        assert places.room(request()) == room


@pytest.mark.parametrize(
    ("chains", "expected"),
    [([], 0), ([0], 1), ([1], 0), ([0, 1], 0), ([0, 1, 0], 1)],
)
def test_the_least_busy_chain_is_taken(chains: list[int], expected: int) -> None:
    running = [video(str(index), chain=chain) for index, chain in enumerate(chains)]
    assert chain_with_room(CONFIG, TWO_CHAINS, running, request()) == expected


def test_of_equal_rates_the_chain_with_fewer_videos_is_taken() -> None:
    running = [video("a", FAST, chain=0)]
    assert chain_with_room(CONFIG, TWO_CHAINS, running, request()) == 1
    full = [video(str(index), FAST, chain=1) for index in range(4)]
    busy = [video("a", chain=0), *full]
    assert chain_with_room(CONFIG, TWO_CHAINS, busy, FAST) == 0, "the other chain has no place"


def test_startable_videos_are_counted_in_their_order() -> None:
    assert num_startable(CONFIG, PLAN, [], [request()] * 9) == 2
    assert num_startable(CONFIG, PLAN, [video("a", chain=0)], [request()] * 9) == 1
    assert num_startable(CONFIG, PLAN, [], [FAST] * 9) == 4
    assert num_startable(CONFIG, TWO_CHAINS, [], [FAST] * 9) == 8
    assert num_startable(CONFIG, PLAN, [], [request(), request(), request(), FAST]) == 2, "nobody is passed over"


def test_the_shortest_remaining_video_says_when_to_ask_again() -> None:
    assert retry_after_s([video("a", chain=0)]) == 10.0
    short = video("b", request(seconds=30.0), chain=0, done=9)
    long = video("c", request(seconds=300.0), chain=0)
    queued = video("d", request(seconds=2.0))
    left_s = short.progress.start_s(41) - short.progress.start_s(9)
    assert retry_after_s([short, long, queued]) == pytest.approx(left_s)
    nearly = video("e", request(seconds=30.0), chain=0, done=41)
    assert retry_after_s([nearly, long]) == 1.0


# --- who is refused ---


def admitted(config: EngineConfig, plan: Plan | None, videos: list[Video]) -> list[bool]:
    """Whether each of the videos is let in, one after the other; refused ones say when to ask again."""
    desk, answers = Desk(config, Observer()), []
    if plan is not None:
        desk.handle(GroupServes(plan), 100.0)
    for one in videos:
        try:
            desk.handle(Asked(one), 100.0)
        except Overloaded as refusal:
            assert refusal.retry_after_s == 10.0 and refusal.code == "overloaded"
            assert one.state == VideoState.QUEUED and one not in desk.videos
            answers.append(False)
        else:
            answers.append(True)
    return answers


def several(count: int, make: Callable[[], Any] = request) -> list[Video]:
    return [video(str(index), make()) for index in range(count)]


def test_beyond_the_queue_videos_are_refused() -> None:
    config = making.config(max_videos=4, max_queue=2)
    assert admitted(config, PLAN, several(6)) == [True] * 4 + [False] * 2
    assert admitted(config, PLAN, several(8, lambda: FAST)) == [True] * 6 + [False] * 2


def test_without_a_queue_there_is_room_for_those_who_start_at_once() -> None:
    assert admitted(making.config(max_videos=1, max_queue=0), PLAN, several(2)) == [True, False]


def test_while_workers_start_the_queue_alone_counts() -> None:
    assert admitted(making.config(max_videos=4, max_queue=3), None, several(5)) == [True] * 3 + [False] * 2
