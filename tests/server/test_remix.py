"""A video like another one, with another prompt."""

from dataclasses import replace

import httpx
import pytest

from engine import PromptAt
from tests.server.keyed_server import ALICE, BOB, bearer, create
from tests.server.live_server import LiveServer

pytestmark = pytest.mark.in_turn


def test_a_remix_differs_in_its_prompt_alone(live: LiveServer) -> None:
    fields = {"seconds": 1, "seed": 7, "size": "832x480", "fps": 24, "quality": "high"}
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


def test_a_remix_is_its_makers_and_counts(clean: LiveServer) -> None:
    video = create(clean, ALICE, priority=3).json()["id"]
    address = f"{clean.url}/v1/videos/{video}/remix"

    def remix(secret: str) -> httpx.Response:
        return httpx.post(address, json={"prompt": "y"}, headers=bearer(secret))

    assert [remix(secret).status_code for secret in (BOB, "")] == [404, 401]
    made = remix(ALICE).json()
    assert clean.engine.video(made["id"]).request.owner == "key alice" and "?token=v" in made["urls"]["events"]
    assert remix(ALICE).status_code == 200 and remix(ALICE).status_code == 429, "three at a time"
