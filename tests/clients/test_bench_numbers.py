"""What ``hiar bench`` decides and counts, without a server."""

import itertools
import json
from xml.etree import ElementTree

import pytest

from hiar_client.bench.chart import chart, windows
from hiar_client.bench.plan import BEHAVIOURS, Load, arrivals, mix_of, viewers
from hiar_client.bench.report import json_of, report
from hiar_client.bench.summary import quantiles, summary_of
from hiar_client.bench.viewing import Arrival, Viewing

MIX = {"reader": 3.0, "leaver": 1.0}


def viewing(*times_s: float, behaviour: str = "reader", end: str | None = "completed", **more: object) -> Viewing:
    """One whose fragments of half a second come at these times."""
    came = [Arrival(at_s=at_s, duration_s=0.5, block=block) for block, at_s in enumerate(times_s)]
    ended_at_s = times_s[-1] if times_s else 1.0
    return Viewing(number=0, behaviour=behaviour, asked_at_s=0.0, arrivals=came, end=end, ended_at_s=ended_at_s, **more)  # type: ignore[arg-type]


def test_the_same_seed_sends_the_same_viewers() -> None:
    load = Load(concurrency=1, requests=400, mix=MIX, seed=3)
    sent = list(viewers(load))
    assert sent == list(viewers(load)) and len(sent) == 400
    assert {one.behaviour for one in sent} == set(MIX)
    assert 60 < sum(one.behaviour == "leaver" for one in sent) < 140
    assert list(viewers(Load(concurrency=1, requests=400, mix=MIX, seed=4))) != sent


def test_arrivals_are_as_many_as_the_rate_says_and_at_random() -> None:
    times_s = list(itertools.takewhile(lambda at_s: at_s < 500, arrivals(4.0, seed=1)))
    gaps_s = [later - one for one, later in itertools.pairwise(times_s)]
    assert 1850 < len(times_s) < 2150
    mean_s = sum(gaps_s) / len(gaps_s)
    # An exponential distribution deviates by as much as its mean.
    assert sum((gap_s - mean_s) ** 2 for gap_s in gaps_s) / len(gaps_s) == pytest.approx(mean_s**2, rel=0.2)


def test_a_mix_has_weights() -> None:
    assert mix_of("reader=6, slow ,leaver=0.5") == {"reader": 6.0, "slow": 1.0, "leaver": 0.5}
    assert mix_of(",".join(BEHAVIOURS)).keys() == BEHAVIOURS.keys()


@pytest.mark.parametrize("text", ["", "reader=", "writer", "reader=-1", "reader=x", "reader=0", "reader=nan"])
def test_a_mix_that_is_none_is_refused(text: str) -> None:
    if text == "reader=":
        assert mix_of(text) == {"reader": 1.0}
    else:
        with pytest.raises(ValueError, match=r"is no behaviour|is not a number|all weights"):
            mix_of(text)


def test_a_stall_is_a_picture_that_stands_still() -> None:
    # Plays from 1.0 on: due at 1.5, 2.0, 2.5; the third is 0.3 s late, and all behind it are then due later.
    assert list(viewing(1.0, 1.2, 2.3, 2.81).stalls()) == [(2.0, pytest.approx(0.3))]
    assert list(viewing(1.0, 1.54, 2.04).stalls()) == []
    assert viewing(1.0, 1.2).is_good and not viewing(1.0, 1.2, 2.3).is_good
    assert not viewing(1.0, 1.2, end="drain").is_good


def test_gaps_leave_out_a_cut() -> None:
    seen = viewing(1.0, 1.5, 3.0, 3.25, behaviour="resumer", cut_at_s=1.6)
    assert seen.gaps_s == [0.5, 0.25]
    assert seen.resumed_after_s == pytest.approx(1.4)
    assert viewing(1.0, 1.5, cut_at_s=1.6).resumed_after_s is None


def test_a_new_prompt_takes_until_its_first_block_comes() -> None:
    assert viewing(1.0, 1.5, 2.0, 2.5, changed_at_s=1.1, changed_block=2).change_after_s == pytest.approx(0.9)
    assert viewing(1.0, 1.5, changed_at_s=1.1, changed_block=2).change_after_s is None
    assert viewing(1.0).change_after_s is None


def test_quantiles_are_values_that_were_measured() -> None:
    told = quantiles([*range(1, 101), None])
    assert (told.n, told.p50, told.p90, told.p99, told.largest) == (100, 50, 90, 99, 100)
    assert quantiles([3.0]).p99 == 3.0
    assert (quantiles([]).n, quantiles([]).p50) == (0, None)


def test_a_run_is_summed_up() -> None:
    seen = [
        viewing(1.0, 1.4, 1.8),
        viewing(1.0, 2.0, 2.5),
        viewing(1.0, 5.0, behaviour="slow"),
        viewing(1.0, behaviour="leaver", end="left"),
        viewing(end="overloaded", is_error=True),
        viewing(1.0, end="worker_lost", is_error=True),
        viewing(1.0, end=None),
    ]
    told = summary_of(seen, 10.0)
    assert (told.asked, told.completed, told.good, told.unfinished) == (7, 3, 1, 1)
    assert (told.refused, told.failed, told.ended) == ({"overloaded": 1}, {"worker_lost": 1}, {"left": 1})
    assert (told.stalled_videos, told.stall_s) == (1, pytest.approx(0.5))
    assert (told.good_a_s, told.video_s_a_s) == (0.1, pytest.approx(0.55))
    assert (told.first_fragment_s.n, told.gap_s.n, told.each_stall_s.n) == (6, 4, 1)


def test_reports_are_read_by_people_and_programs() -> None:
    seen = [viewing(1.0 + number / 7, 1.4 + number / 7, 2.5 + number / 7) for number in range(40)]
    load = Load(rate=2.0, duration_s=5.0, mix=MIX)
    told = summary_of(seen, 5.0)
    about = {"model": "none", "slots": 2, "cpus": 2, "load_average": (1.25, 1, 1)}
    text = report(load, told, about)
    assert "| first fragment " in text and "| with stalls " in text and "was 1.2 in the end" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines[:5]}) == 1
    plain = json.loads(json_of(load, told, seen, about))
    assert len(plain["viewers"]) == plain["summary"]["asked"] == 40
    assert plain["load"]["mix"] == MIX and plain["viewers"][0]["arrivals"][0] == [1.0, 0.5]


def test_the_picture_is_svg_with_every_panel() -> None:
    seen = [viewing(1.0 + number / 7, 1.4 + number / 7, 2.5 + number / 7) for number in range(40)]
    root = ElementTree.fromstring(chart([*seen, viewing(end="overloaded", is_error=True)], 9.0, 'a <run> & "more"'))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {'a <run> & "more"', "Time to the first fragment (s); n = 40", "stall: 40", "refused: 1"} <= set(texts)
    assert ElementTree.fromstring(chart([], 0.0, "")) is not None


def test_windows_have_quantiles_of_their_own() -> None:
    points = [(second / 10, float(second // 100)) for second in range(200)]
    found = windows(points, 20.0, 90)
    assert len(found) == 30
    assert [value for _, value in found] == [0.0] * 15 + [1.0] * 15
    assert windows(points[:5], 20.0, 90) == [(10.0, 0.0)]
