"""A prompt that no worker can embed: its request fails typed, and nothing else does."""

import httpx

from engine import EngineState, VideoFailed, VideoState
from tests.instant import Behaviour
from tests.server.live_server import serving
from tests.server.scrape import scrape

BUG = VideoFailed("embedding a prompt failed on cpu (KeyError)")


def test_a_video_and_a_change_fail_typed_and_the_workers_go_on() -> None:
    with serving(Behaviour(block_s=0.02)) as live, live.holding() as video_id:
        live.behaviour.prompt_failure = BUG
        change = httpx.post(f"{live.url}/v1/videos/{video_id}/prompt", json={"prompt": "bad"})
        made = httpx.post(f"{live.url}/v1/generate", json={"prompt": "bad", "seconds": 1})
        for answer in (change, made):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_error")
            assert answer.json()["error"]["message"] == BUG.message
        live.behaviour.prompt_failure = None
        assert httpx.post(f"{live.url}/v1/videos/{video_id}/prompt", json={"prompt": "good"}).status_code == 200
        assert httpx.post(f"{live.url}/v1/generate", json={"prompt": "good", "seconds": 1}).status_code == 200
        assert live.engine.video(video_id).status().state is VideoState.RUNNING
        assert live.engine.state is EngineState.READY
        now = scrape(live.url)
        assert now.value("hiar_videos_finished_total", reason="engine_error") == 1
        assert now.total("hiar_engine_restarts_total") == 0
