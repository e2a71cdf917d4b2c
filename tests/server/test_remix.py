"""A video like another one, with another prompt."""

from dataclasses import replace

import httpx
import pytest

from engine import PromptAt
from tests.server.live_server import LiveServer

pytestmark = pytest.mark.in_time


def test_a_remix_differs_in_its_prompt_alone(live: LiveServer) -> None:
    fields = {"seconds": 1, "seed": 7, "size": "832x480", "fps": 24, "quality": "high", "priority": 2}
    first = httpx.post(f"{live.url}/v1/videos", json={"prompt": "a fox", **fields}).json()
    assert first["remixed_from_video_id"] is None
    answer = httpx.post(f"{live.url}/v1/videos/{first['id']}/remix", json={"prompt": "a wolf"})
    told = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (200, f"/v1/videos/{told['id']}")
    assert (told["prompt"], told["remixed_from_video_id"]) == ("a wolf", first["id"]) and told["id"] != first["id"]
    before, after = (video.request for video in live.engine.opened)
    assert after == replace(before, prompts=(PromptAt(at_s=0.0, text="a wolf"),), remixed_from=first["id"])


def test_what_cannot_be_remixed_is_refused(live: LiveServer) -> None:
    video = httpx.post(f"{live.url}/v1/videos", json={"prompt": "a fox"}).json()["id"]
    unknown = httpx.post(f"{live.url}/v1/videos/none/remix", json={"prompt": "a wolf"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    for body in ({}, {"prompt": ""}, {"prompt": "x", "seed": 2}):
        assert httpx.post(f"{live.url}/v1/videos/{video}/remix", json=body).status_code == 400
    httpx.delete(f"{live.url}/v1/videos/{video}")
    assert httpx.post(f"{live.url}/v1/videos/{video}/remix", json={"prompt": "x"}).status_code == 404
