"""Videos that continue others, over HTTP."""

from dataclasses import replace

import httpx
import pytest

from engine import PromptAt
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, bearer, create
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn


def ended(live: LiveServer, **fields: object) -> str:
    """A video that is whole; its id."""
    made = httpx.post(f"{live.url}/v1/videos", json={"prompt": "a fox", **fields}).json()["id"]
    eventually(lambda: live.engine.video(made).is_ended)
    return str(made)


def extend(live: LiveServer, video: str, **body: object) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/videos/{video}/extend", json=body)


def test_a_video_goes_on_in_another(live: LiveServer) -> None:
    first = ended(live, seconds=2, seed=7, size="832x480", fps=24, quality="high", pace="realtime")
    answer = extend(live, first, seconds="1.5")
    told = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (200, f"/v1/videos/{told['id']}")
    assert (told["prompt"], told["extended_from_video_id"], told["seconds"]) == ("a fox", first, "1.5")
    before, after = (video.request for video in live.engine.opened)
    assert after.continues is not None and after.continues.first_frame == 48
    assert after == replace(before, seconds=1.5, continues=after.continues)
    eventually(lambda: live.engine.video(told["id"]).is_ended)
    content = httpx.get(f"{live.url}/v1/videos/{told['id']}/content")
    assert content.status_code == 200 and live.engine.video(told["id"]).kept.start == 0
    told = httpx.get(f"{live.url}/v1/videos/{told['id']}").json()
    assert (told["status"], told["seconds_done"], told["first_block"]) == ("completed", 1.5, 0)
    again = extend(live, told["id"], seconds=1, prompt="a wolf").json()
    assert (again["prompt"], again["extended_from_video_id"]) == ("a wolf", told["id"])
    assert live.engine.opened[-1].request.prompts == (PromptAt(at_s=0.0, text="a wolf"),)


def test_what_cannot_be_extended_is_refused() -> None:
    with serving(Behaviour(first_block_s=3600), max_seconds=10.0) as live:
        video = httpx.post(f"{live.url}/v1/videos", json={"prompt": "a fox"}).json()["id"]
        refused = extend(live, video, seconds=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        assert extend(live, "none", seconds=1).status_code == 404
        for body in ({}, {"seconds": None}, {"seconds": 0}, {"seconds": 11}, {"seconds": 1, "prompt": ""}):
            answer = extend(live, video, **body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, list(body or {"seconds": 1})[-1])


def test_only_its_owner_extends_a_video(clean: LiveServer) -> None:
    video = create(clean, ALICE, priority=3).json()["id"]
    address = f"{clean.url}/v1/videos/{video}/extend"
    codes = [httpx.post(address, json={"seconds": 1}, headers=bearer(key)).status_code for key in (BOB, "", ALICE)]
    assert codes == [404, 401, 409], "its owner is told that it runs"
