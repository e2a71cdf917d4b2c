"""When blocks may go and who goes first, on invented clocks."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.engine_config import EngineConfig
from engine.front.pacing import AT_ONCE, Cursor, Progress, leading, ready_at, realtime_factor, urgency
from engine.manifest import read_manifest
from engine.request import Pace, PromptAt, VideoRequest

MANIFEST = read_manifest(Path("models/tiny"))
CONFIG = EngineConfig(manifest=MANIFEST, lead_target_s=3.0, backlog_limit_s=5.0, max_inflight_blocks=2)


def progress(pace: Pace = Pace.REALTIME, seconds: float | None = None, priority: int = 0) -> Progress:
    request = VideoRequest(
        prompts=(PromptAt(at_s=0, text="x"),),
        width_px=128,
        height_px=128,
        fps=16,
        seconds=seconds,
        pace=pace,
        priority=priority,
    )
    return Progress(request=request, rollout=MANIFEST.rollout, opened_at=100.0)


def reader(at: int = 0, playing_since: float | None = None) -> Cursor:
    return Cursor(first_block=at, next_block=at, playing_since=playing_since)


def read(one: Progress, *moments: float) -> Cursor:
    """A single reader that takes one block at each moment, as soon as it is made."""
    one.leader = cursor = reader()
    for now in moments:
        one.count_stall(now)
        one.done += 1
        one.take(cursor, now)
    return cursor


def test_blocks_in_the_chain_are_those_issued_and_not_returned() -> None:
    one = progress()
    assert one.num_inflight == 0
    one.issued, one.returned, one.done = 7, 5, 60
    assert one.num_inflight == 2


def test_realtime_waits_at_its_lead_and_goes_on_as_playback_does() -> None:
    one = progress()
    one.issued = one.returned = one.done = one.taken = 6  # 9 + 5 * 12 frames = 4.3125 s
    one.leader = reader(6, 100.0)
    moment = ready_at(one, CONFIG)
    assert moment == pytest.approx(100.0 + 4.3125 - 3.0)


def test_fast_does_not_wait_for_playback_but_for_its_reader() -> None:
    one = progress(Pace.FAST)
    one.issued = one.returned = one.done = one.taken = 60
    assert ready_at(one, CONFIG) == AT_ONCE
    one.taken = 52  # eight blocks of 0.75 s are not taken: more than 5 s
    assert ready_at(one, CONFIG) is None


def test_a_finite_video_ends_and_its_last_block_is_cut() -> None:
    one = progress(seconds=2.0)  # 32 frames: 9 + 12 + 11
    assert one.num_blocks == 3
    assert [one.shown_frames(block) for block in range(3)] == [9, 12, 11]
    one.issued = one.returned = one.done = 3
    assert ready_at(one, CONFIG) is None


def test_realtime_ones_go_by_deadline_and_fast_ones_after_them_by_priority() -> None:
    behind, ahead, high = progress(), progress(), progress(priority=9)
    fast, fast_high = progress(Pace.FAST), progress(Pace.FAST, priority=9)
    for one, issued in ((behind, 3), (ahead, 5), (high, 9), (fast, 0), (fast_high, 7)):
        one.issued, one.leader = issued, reader()
    order = sorted([fast, fast_high, high, ahead, behind], key=urgency)
    assert order == [behind, ahead, high, fast_high, fast]


def test_realtime_factor_is_video_seconds_per_second() -> None:
    one = progress()
    assert realtime_factor(one, 101.0) is None
    one.done, one.last_done_at = 9, 103.0
    assert realtime_factor(one, 103.0) == pytest.approx((9 + 8 * 12) / 16 / 3.0)


def test_playback_begins_with_a_full_block() -> None:
    one = progress()
    cursor = read(one, 101.0)  # 9 frames, 0.5625 s: less than the 12 of every other block
    assert cursor.playing_since is None
    one.done = 2
    one.take(cursor, 103.0)
    assert one.taken == 2 and cursor.playing_since == pytest.approx(103.0)
    assert (one.num_stalls, one.stalled_s) == (0, 0.0), "nobody waits before playback began"


def test_one_that_joins_late_plays_from_where_it_began() -> None:
    one = progress()
    one.done = 20
    cursor = reader(10)  # block 10 begins at (9 + 9 * 12) / 16 = 7.3125 s
    one.take(cursor, 200.0)
    assert cursor.playing_since == pytest.approx(200.0 - 7.3125)


def test_a_reader_in_time_never_stalls() -> None:
    one = progress()
    cursor = read(one, 102.0, 103.0, 104.3125, 105.0, 105.8125)  # due from the third on: 104.3125, 105.0625, 105.8125
    assert (one.taken, cursor.playing_since, one.num_stalls, one.stalled_s) == (5, 103.0, 0, 0.0)


def test_a_block_that_comes_late_stalls_once_and_moves_what_follows() -> None:
    one = progress()
    cursor = read(one, 103.0, 103.0, 106.3125)  # 2 s after its first frame was due
    assert (cursor.playing_since, one.num_stalls, one.stalled_s) == (105.0, 1, 2.0)
    for now, since, num_stalls, stalled_s in ((107.0, 105.0, 1, 2.0), (108.3125, 105.5, 2, 2.5)):  # due 107.06, 107.81
        one.count_stall(now)
        one.done += 1
        one.take(cursor, now)
        assert (cursor.playing_since, one.num_stalls, one.stalled_s) == (since, num_stalls, stalled_s)


def test_a_stall_counts_while_it_lasts() -> None:
    """Block 2 is due at 104.3125."""
    one = progress()
    read(one, 103.0, 103.0)
    told = [one.count_stall(now) for now in (104.0, 105.3125, 105.3125, 106.8125, 110.3125)]
    assert told == [0.0, 1.0, 0.0, 1.5, 3.5]
    assert (one.num_stalls, one.stalled_s) == (1, 6.0)


def test_nobody_stalls_who_has_blocks_to_take_or_has_seen_all() -> None:
    one = progress(seconds=2.0)
    cursor = read(one, 103.0, 103.0)
    one.done = 3
    assert one.count_stall(200.0) == 0.0, "the block is there: the reader is late, not the chain"
    one.take(cursor, 200.0)
    assert one.count_stall(300.0) == 0.0, "there is no fourth block"


def test_a_stall_gives_the_chain_no_more_lead() -> None:
    smooth, stalled = progress(), progress()
    for one, third_at in ((smooth, 101.0), (stalled, 105.3125)):
        read(one, 100.0, 100.0, third_at)
        one.issued = one.returned = one.done = 6
    assert ready_at(smooth, CONFIG) == pytest.approx(100.0 + 4.3125 - 3.0)
    assert ready_at(stalled, CONFIG) == pytest.approx(104.0 + 4.3125 - 3.0)


def test_the_leading_reader_is_the_one_close_behind_that_plays_first() -> None:
    one = progress()
    one.done = 20
    first, later, far, new, keeper = reader(19, 100.0), reader(20, 115.0), reader(2, 90.0), reader(20), reader(20, 95.0)

    def leads(*readers: Cursor, keeper: Cursor | None = None) -> Cursor | None:
        return leading(one, readers, keeper, CONFIG)

    assert leads() is None
    assert leads(far) is far, "alone, whatever it lags"
    assert leads(new) is new
    assert leads(far, later, new, first) is first
    assert leads(far, new, later) is later
    assert leads(keeper=keeper) is keeper and leads(far, keeper=keeper) is keeper, "one that lags stops no job"
    assert leads(far, later, keeper=keeper) is later, "who watches comes first"
    first.next_block = 15  # 3.75 s behind: more than a lead
    assert leads(far, first, later) is later


@pytest.mark.parametrize("pace", list(Pace))
def test_lost_blocks_are_made_again_at_once(pace: Pace) -> None:
    one = progress(pace)
    one.done, one.taken, one.leader = 60, 10, reader(10, 100.0)
    one.issued = one.returned = 60
    moment = ready_at(one, CONFIG)
    assert moment is None, "its reader is far behind"
    one.issued = one.returned = 0
    for block in range(60):
        one.issued = one.returned = block
        assert ready_at(one, CONFIG) == AT_ONCE
    one.issued = one.returned = 60
    assert ready_at(one, CONFIG) is None


def test_a_lost_video_goes_before_one_that_is_ahead() -> None:
    lost, ahead = progress(), progress()
    for one in (lost, ahead):
        one.done, one.issued, one.leader = 20, 20, reader(20, 100.0)
    lost.issued = 3
    assert urgency(lost) < urgency(ahead)


def test_one_that_nobody_reads_is_made_up_to_its_lead_and_waits_behind_all_that_are_watched() -> None:
    left, watched = progress(), progress()
    left.done = left.issued = left.taken = 40
    assert ready_at(left, CONFIG) == AT_ONCE
    left.issued = left.done = 45  # 3.75 s that nobody took
    assert ready_at(left, CONFIG) is None
    watched.leader, watched.issued = reader(90, 1000.0), 90
    assert urgency(watched) < urgency(left)


def test_before_playback_a_realtime_video_is_made_up_to_its_lead_and_no_further() -> None:
    one = progress()
    one.issued = 4  # 9 + 3 * 12 frames = 2.8125 s
    assert ready_at(one, CONFIG) == AT_ONCE
    one.issued = one.returned = one.done = 5
    assert ready_at(one, CONFIG) is None, "time alone changes nothing"


def test_with_the_smallest_lead_a_player_still_gets_what_it_begins_with() -> None:
    config = replace(CONFIG, lead_target_s=0.001)
    one = progress()
    one.leader = cursor = reader()
    for now in (100.0, 100.5):
        assert ready_at(one, config) == AT_ONCE
        one.issued = one.returned = one.done = one.done + 1
        one.take(cursor, now)
    assert cursor.playing_since == 100.5
    assert ready_at(one, config) == pytest.approx(100.5 + 1.3125, abs=0.01)
