"""Server-sent events of a video, over real sockets."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from engine import EngineOptions, WorkerLost
from server.videos.event_schemas import EventAnswer
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn

EVENT = jsonschema.Draft202012Validator(EventAnswer.model_json_schema())


def create(live: LiveServer, **fields: object) -> str:
    told = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", **fields}).json()
    assert told["urls"]["events"] == f"/v1/videos/{told['id']}/events"
    return f"{live.url}/v1/videos/{told['id']}"


def events(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """As they come: number and data."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            data = json.loads(fields["data"])
            assert data["type"] == fields["event"]
            yield int(fields["id"]), data
            fields = {}


def all_events(video: str, **headers: str) -> list[tuple[int, dict[str, Any]]]:
    with httpx.stream("GET", f"{video}/events", headers=headers) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"] == "text/event-stream"
        return list(events(answer.iter_lines()))


def test_a_video_is_told_while_it_is_made_and_again_afterwards() -> None:
    with serving(Behaviour(block_s=0.1)) as live:
        video = create(live, seconds=2)
        told = all_events(video)
        kinds = [data["type"] for _, data in told]
        assert kinds == ["queued", "prompt", "started", "block", "block", "block", "ended"]
        assert [number for number, _ in told] == list(range(1, 8))
        assert told[0][1] == {"type": "queued", "id": video.rpartition("/")[2], "queue_position": 1}
        block = told[4][1]
        assert (block["block"], block["blocks_done"], block["seconds_done"]) == (1, 2, 21 / 16)
        assert block["realtime_factor"] > 0
        assert [step["step"] for step in block["steps"]] == [0, 1, 2, 3]
        ends = [step["began_seconds"] + step["took_seconds"] for step in block["steps"]]
        assert 0.1 < block["steps"][0]["began_seconds"] < ends[0] < ends[3] < 10, "seconds since it left the queue"
        assert ends[3] - block["steps"][0]["began_seconds"] == pytest.approx(0.1, abs=0.001)
        assert all(EVENT.is_valid(data) for _, data in told)
        assert told[-1][1].items() >= {"end_reason": "completed", "blocks_done": 3, "seconds_done": 2.0}.items()
        assert all_events(video) == told and all_events(video, **{"Last-Event-ID": "4"}) == told[4:]
        assert httpx.get(f"{video}/events", headers={"Last-Event-ID": "7"}).status_code == 204
        assert all_events(video, **{"Last-Event-ID": "700"}) == told, "of another life of the server"
        refused = httpx.get(f"{video}/events", headers={"Last-Event-ID": "x"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")
        assert httpx.get(f"{live.url}/v1/videos/none/events").status_code == 404
        assert httpx.head(f"{video}/events").headers["content-type"] == "text/event-stream"


def test_they_come_at_once_and_a_pause_is_filled() -> None:
    with (
        serving(Behaviour(block_s=0.5), engine=EngineOptions(max_videos=1)) as live,
        httpx.stream("GET", f"{create(live, seconds=None)}/events") as first,
    ):
        video = create(live, seconds=1)
        with httpx.stream("GET", f"{video}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "retry: 1000"
            coming = events(lines)
            assert [next(coming)[1].get("queue_position") for _ in range(2)] == [None, 1], "behind its prompt"
            assert httpx.get(video).json()["readers"] == 0, "who listens reads nothing"
            began = time.monotonic()
            httpx.delete(f"{live.url}/v1/videos/{live.engine.opened[0].id}")
            assert next(coming)[1]["type"] == "started"
            assert time.monotonic() - began < 0.4
            rest = list(lines)
        assert rest.count(": still here") >= 2 and rest[-3].startswith("event: ended")
        assert list(events(first.iter_lines()))[-1][1]["end_reason"] == "cancelled"


def test_a_loss_a_change_and_a_failure_are_told() -> None:
    with serving(Behaviour(block_s=0.1, fail_at=6, failure=WorkerLost("a worker died"))) as live:
        video = create(live, seconds=None)
        with httpx.stream("GET", f"{video}/events") as answer:
            coming = (data for _, data in events(answer.iter_lines()))
            assert [next(coming)["type"] for _ in range(5)] == ["queued", "prompt", "started", "block", "block"]
            live.do(live.engine.workers.lose)
            assert next(coming)["type"] == "recovering"
            live.do(live.engine.workers.serve)
            recovered = next(coming)
            assert (recovered["type"], recovered["exact"]) == ("recovered", True)
            changed = httpx.post(f"{video}/prompt", json={"prompt": "y"}).json()
            rest = list(coming)
        prompts = [data for data in rest if data["type"] == "prompt"]
        assert [(data["block"], data["prompt"]) for data in prompts] == [(changed["block"], "y")]
        assert all(EVENT.is_valid(data) for data in (recovered, *rest))
        assert rest[-1]["type"] == "failed" and rest[-1]["error"] == {
            "code": "worker_lost",
            "message": "a worker died",
        }


def test_who_leaves_is_noticed() -> None:
    with serving(Behaviour(block_s=60)) as live:
        video = create(live)
        in_flight = live.families.http.in_flight.labels("/v1/videos/{video_id}/events")
        with httpx.stream("GET", f"{video}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "retry: 1000"
            assert in_flight._value.get() == 1
        eventually(lambda: in_flight._value.get() == 0)
