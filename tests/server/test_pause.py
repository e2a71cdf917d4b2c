"""Pausing and resuming over HTTP."""

from dataclasses import replace

import httpx
import pytest

from engine import EngineOptions, VideoState
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, bearer, create
from tests.server.live_server import QUICK, LiveServer, eventually, serving
from tests.server.test_events import all_events

pytestmark = pytest.mark.in_turn


def tell(live: LiveServer, video_id: str, what: str) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/videos/{video_id}/{what}")


def test_a_stream_waits_through_a_pause_and_gets_every_block() -> None:
    with (
        serving(Behaviour(block_s=0.05)) as live,
        httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "x", "seconds": 6, "pace": "fast"}) as answer,
    ):
        video = live.engine.opened[0]
        paused = tell(live, video.id, "pause").json()
        assert (paused["status"], paused["paused"]) == ("in_progress", True)
        coming = answer.iter_bytes()
        received = b""
        while received.count(b"free") < 3:  # of a stream in which nothing else comes
            received += next(coming)
        assert (again := tell(live, video.id, "pause").json())["paused"] and again["blocks_done"] < 9
        resumed = tell(live, video.id, "resume").json()
        assert (resumed["paused"], resumed["end_reason"]) == (False, None)
        assert tell(live, video.id, "resume").status_code == 200
        received += b"".join(coming)
        assert received.count(b"moof") == 9 and b'"reason": "completed"' in received
        kinds = [data["type"] for _, data in all_events(f"{live.url}/v1/videos/{video.id}")]
        assert [kind for kind in kinds if kind in {"paused", "resumed"}] == ["paused", "resumed"]
        for what in ("pause", "resume"):
            refused = tell(live, video.id, what)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
            assert tell(live, "none", what).status_code == 404


def test_a_video_that_sleeps_leaves_its_place_to_others_and_goes_on_exactly() -> None:
    with serving(Behaviour(block_s=0.05), engine=EngineOptions(max_videos=1, pause_hold_s=0.1)) as live:
        fields = {"prompt": "x", "seconds": 6}
        made = httpx.post(f"{live.url}/v1/videos", json=fields).json()["id"]
        video = live.engine.video(made)
        eventually(lambda: len(video.kept) >= 2)
        assert tell(live, made, "pause").json()["paused"]
        eventually(lambda: video.status().state is VideoState.SLEEPING)
        other = httpx.post(f"{live.url}/v1/videos", json=fields).json()["id"]
        eventually(lambda: live.engine.video(other).is_ended)
        told = httpx.get(f"{live.url}/v1/videos/{made}").json()
        assert (told["status"], told["paused"], told["recoveries"]) == ("in_progress", True, [])
        tell(live, made, "resume")
        eventually(lambda: video.is_ended)
        told = httpx.get(f"{live.url}/v1/videos/{made}").json()
        assert (told["status"], told["paused"]) == ("completed", False)
        assert [one["exact"] for one in told["recoveries"]] == [True]
        whole, undisturbed = (httpx.get(f"{live.url}/v1/videos/{one}/content").content for one in (made, other))
        assert whole == undisturbed


def test_the_wait_for_the_first_block_is_as_long_as_it_was_without_the_pause() -> None:
    limits = replace(QUICK, first_fragment_timeout_s=0.5)
    with serving(Behaviour(holds_prompts=True), transport=limits) as live:
        made = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "seconds": 1}).json()["id"]
        told = tell(live, made, "pause").json()
        assert (told["status"], told["paused"], told["queue_position"]) == ("queued", True, None)
        live.do(live.loop.call_later, 1.0, live.engine.video(made).resume)
        live.do(live.loop.call_later, 1.1, live.engine.workers.answer_prompts)
        assert httpx.get(f"{live.url}/v1/videos/{made}/content", timeout=10).status_code == 200


def test_only_its_owner_pauses_a_video(clean: LiveServer) -> None:
    video = create(clean, ALICE).json()["id"]
    for what in ("pause", "resume"):
        address = f"{clean.url}/v1/videos/{video}/{what}"
        codes = [httpx.post(address, headers=bearer(secret)).status_code for secret in (BOB, "", ALICE)]
        assert codes == [404, 401, 200]
