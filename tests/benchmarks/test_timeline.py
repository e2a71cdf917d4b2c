"""Recorded spans as a trace that Perfetto opens and as a picture of the diagonal."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.timeline import chrome_trace, diagonal_svg
from engine.trace import Phase, Span

NUM_STAGES = 4
PASS_S = 0.03
START_S = 86400.7
SVG = "{http://www.w3.org/2000/svg}"


def span(phase: Phase, stage: int | None, block: int, begin: float, end: float, **other: Any) -> Span:
    """A span of the given units of time, on the worker of its stage."""
    fields = {"rank": NUM_STAGES if stage is None else stage, "video": "one", **other}
    return Span(
        phase=phase,
        stage=stage,
        block=block,
        began_s=START_S + begin * PASS_S,
        ended_s=START_S + end * PASS_S,
        **fields,
    )


def diagonal(num_blocks: int, first_block: int = 0) -> tuple[Span, ...]:
    """The ideal schedule: passes of one unit, D(b) at stage s from s + 2b on."""
    spans = [span(Phase.TEXT, None, -1, -3, -1)]
    for index in range(num_blocks):
        block = first_block + index
        for stage in range(NUM_STAGES):
            begin = stage + 2 * index
            if stage > 0:
                spans.append(span(Phase.RECEIVE, None, block, begin - 0.25, begin, rank=stage))
            spans.append(span(Phase.DENOISE, stage, block, begin, begin + 1))
            spans.append(span(Phase.CACHE, stage, block, begin + 1, begin + 2))
        begin = NUM_STAGES + 2 * index
        spans.append(span(Phase.DECODE, None, block, begin, begin + 1.25))
        spans.append(span(Phase.ENCODE, None, block, begin + 1.25, begin + 1.75))
    return tuple(spans)


FUSED = (
    span(Phase.DENOISE, 0, 0, 0, 1),
    span(Phase.CACHE, 0, 0, 1, 3),
    span(Phase.DENOISE, 0, 1, 1, 3),
    span(Phase.CACHE, 0, 1, 3, 4),
)
"""D(0); C(0) and D(1) in one forward; C(1)."""

TWO_VIDEOS = (
    span(Phase.DENOISE, 0, 5, 0, 2, video="one"),
    span(Phase.DENOISE, 0, 9, 0, 2, video="two"),
    span(Phase.DENOISE, 0, 6, 2, 3, video="one"),
)


def complete_events(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def thread_names(trace: dict[str, Any]) -> dict[tuple[int, int], str]:
    named = [event for event in trace["traceEvents"] if event["name"] == "thread_name"]
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in named}


def test_events_have_the_keys_of_the_format() -> None:
    spans = diagonal(6)
    trace = json.loads(json.dumps(chrome_trace(spans)))
    events = complete_events(trace)
    assert len(events) == len(spans)
    for event in events:
        assert set(event) == {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"}
        assert set(event["args"]) == {"video", "block"}
        assert event["ts"] >= 0 and event["dur"] > 0
    assert {event["ph"] for event in trace["traceEvents"]} == {"X", "M"}
    assert {event["name"] for event in events} == {"text", *(f"block {block}" for block in range(6))}


def test_every_lane_of_every_worker_is_named() -> None:
    trace = chrome_trace(diagonal(3))
    processes = {
        event["pid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"
    }
    assert processes == {rank: f"worker {rank}" for rank in range(NUM_STAGES + 1)}
    names = thread_names(trace)
    assert {(event["pid"], event["tid"]) for event in complete_events(trace)} == set(names)
    lanes = [[name for (pid, _), name in sorted(names.items()) if pid == rank] for rank in (0, 2, 4)]
    assert lanes == [["denoise[0]", "cache[0]"], ["receive", "denoise[2]", "cache[2]"], ["text", "decode", "encode"]]


@pytest.mark.parametrize("spans", [diagonal(12), FUSED, TWO_VIDEOS])
def test_events_of_a_lane_do_not_overlap(spans: tuple[Span, ...]) -> None:
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in complete_events(chrome_trace(spans)):
        lanes[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for lane in lanes.values():
        for (_, ended_us), (began_us, _) in zip(sorted(lane), sorted(lane)[1:], strict=False):
            assert ended_us <= began_us + 1e-6


def test_durations_and_start_match_the_spans() -> None:
    spans = diagonal(12)
    events = complete_events(chrome_trace(spans))
    assert min(event["ts"] for event in events) == 0
    assert max(event["ts"] + event["dur"] for event in events) == pytest.approx((3 + 4 + 22 + 1.75) * PASS_S * 1e6)
    for phase in {span.phase for span in spans}:
        spent_s = sum(span.ended_s - span.began_s for span in spans if span.phase == phase)
        spent_us = sum(event["dur"] for event in events if event["cat"] == phase)
        assert spent_us == pytest.approx(spent_s * 1e6, abs=0.1)


def test_passes_of_a_fused_forward_have_their_own_lanes() -> None:
    trace = chrome_trace(FUSED)
    assert sorted(thread_names(trace).values()) == ["cache[0]", "denoise[0]"]
    trace = chrome_trace(TWO_VIDEOS)
    names = thread_names(trace)
    lane_of = {event["args"]["block"]: names[event["pid"], event["tid"]] for event in complete_events(trace)}
    assert lane_of == {5: "denoise[0]", 9: "denoise[0] (2)", 6: "denoise[0]"}


def test_no_span_gives_an_empty_trace_and_no_picture() -> None:
    assert chrome_trace(())["traceEvents"] == []
    with pytest.raises(ValueError, match="none of 0 spans"):
        diagonal_svg((), "nothing")
    with pytest.raises(ValueError, match="none of 1 spans"):
        diagonal_svg((span(Phase.TEXT, None, -1, 0, 1),), "no block")


@dataclass(frozen=True)
class Drawn:
    """A rectangle of the picture and what it says when pointed at."""

    about: str
    phase: str
    fill: str
    x_px: float
    y_px: float
    width_px: float
    height_px: float


def rectangles(svg: str) -> dict[str, Drawn]:
    """By lane and block, like ``cache[1], block 3``."""
    found = {}
    for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect"):
        kind, _, phase = rect.get("class", "").partition(" ")
        if kind == "span":
            about = rect.findtext(f"{SVG}title", "")
            place = [float(rect.get(name, "nan")) for name in ("x", "y", "width", "height")]
            found[about.partition(", video")[0]] = Drawn(about, phase, rect.get("fill", ""), *place)
    return found


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_pass_is_a_rectangle_at_its_place() -> None:
    svg = diagonal_svg(diagonal(12), "four stages")
    drawn = rectangles(svg)
    phases = [rectangle.phase for rectangle in drawn.values()]
    assert {phase: phases.count(phase) for phase in set(phases)} == {
        "denoise": 48,
        "cache": 48,
        "decode": 12,
        "encode": 12,
    }
    unit_px = (drawn["denoise[0], block 11"].x_px - drawn["denoise[0], block 0"].x_px) / 22
    for stage in range(NUM_STAGES):
        first, later = drawn["denoise[0], block 0"], drawn[f"denoise[{stage}], block 7"]
        assert later.x_px - first.x_px == pytest.approx((stage + 14) * unit_px, abs=0.05)
        assert later.width_px == pytest.approx(unit_px, abs=2)
    rows = [drawn[f"denoise[{stage}], block 0"].y_px for stage in range(NUM_STAGES)]
    assert sorted({*rows, drawn["decode, block 0"].y_px}) == [*rows, drawn["decode, block 0"].y_px]
    assert len({rectangle.height_px for rectangle in drawn.values()}) == 1
    assert drawn["cache[1], block 3"].about == "cache[1], block 3, video one, 0.24 s to 0.27 s"
    assert max(rectangle.x_px + rectangle.width_px for rectangle in drawn.values()) < 1200


def test_passes_of_a_fused_forward_are_stacked() -> None:
    drawn = rectangles(diagonal_svg(FUSED, "fused"))
    alone, above, below = (
        drawn[f"{name}, block {b}"] for name, b in (("denoise[0]", 0), ("denoise[0]", 1), ("cache[0]", 0))
    )
    assert (above.x_px, above.width_px) == (below.x_px, below.width_px)
    assert above.height_px + below.height_px + 1.5 == pytest.approx(alone.height_px)
    assert above.y_px == alone.y_px
    assert below.y_px == pytest.approx(above.y_px + above.height_px + 1.5)


def test_ends_that_differ_by_the_timers_own_time_do_not_unstack() -> None:
    late = span(Phase.DENOISE, 0, 1, 1, 3.0001)
    drawn = rectangles(diagonal_svg((FUSED[0], FUSED[1], late, FUSED[3]), "fused"))
    assert drawn["cache[0], block 1"].height_px == drawn["denoise[0], block 0"].height_px
    assert drawn["denoise[0], block 1"].height_px < 22


def test_an_encode_beside_the_next_decode_stays_below_it() -> None:
    spans = [span(Phase.DECODE, None, block, 2 * block, 2 * block + 1.5) for block in range(4)]
    spans += [span(Phase.ENCODE, None, block, 2 * block + 1.5, 2 * block + 2.5) for block in range(4)]
    drawn = rectangles(diagonal_svg(tuple(spans), "decode"))
    (decode_px,) = {drawn[f"decode, block {block}"].y_px for block in (1, 2, 3)}
    (encode_px,) = {drawn[f"encode, block {block}"].y_px for block in (0, 1, 2)}
    assert decode_px < encode_px


def test_colours_tell_neighbouring_blocks_and_passes_apart() -> None:
    drawn = rectangles(diagonal_svg(diagonal(12), "colours"))
    for block in range(11):
        fills = {drawn[f"{lane}, block {b}"].fill for lane in ("denoise[2]", "cache[2]") for b in (block, block + 1)}
        assert len(fills) == 4
        assert drawn[f"denoise[2], block {block}"].fill == drawn[f"decode, block {block}"].fill


def test_only_the_first_blocks_are_drawn() -> None:
    spans = diagonal(40, first_block=1000)
    assert len(rectangles(diagonal_svg(spans, "long"))) == 16 * 10
    svg = diagonal_svg(spans, "long", num_blocks=3)
    assert len(rectangles(svg)) == 3 * 10
    assert {"1000", "1001", "1002"} < set(words(svg))
    assert "1003" not in words(svg)


def test_numbers_stand_only_where_they_fit() -> None:
    numbers = [word for word in words(diagonal_svg(diagonal(200), "narrow", num_blocks=200)) if word == "150"]
    assert numbers == []


def test_axis_legend_and_title() -> None:
    written = words(diagonal_svg(diagonal(12), "4 stages & <12> blocks"))
    assert "4 stages & <12> blocks" in written
    assert {"0", "0.1", "0.8", "time, seconds"} < set(written)
    assert {"denoise pass, decode", "cache pass", "encode", "denoise[3]", "decode", "worker 4"} < set(written)


@pytest.mark.parametrize("scale", [1e-5, 0.004, 1, 37, 5e4])
def test_axis_has_a_readable_number_of_ticks_at_any_length(scale: float) -> None:
    svg = diagonal_svg((span(Phase.DENOISE, 0, 0, 0, scale),), "axis")
    grid = [line for line in ElementTree.fromstring(svg).iter(f"{SVG}line") if line.get("class") == "grid"]
    assert 4 <= len(grid) <= 13


def test_replicas_of_a_stage_have_rows_of_their_own() -> None:
    chains = (span(Phase.DENOISE, 0, 0, 0, 2), span(Phase.DENOISE, 0, 1, 1, 3, rank=2))
    first, second = rectangles(diagonal_svg(chains, "two chains")).values()
    assert second.y_px >= first.y_px + first.height_px
    assert first.height_px == second.height_px
