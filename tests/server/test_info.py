"""What the server says of itself, and steering of running videos."""

import httpx
import pytest

from engine import EngineState, StartError
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn


@pytest.mark.parametrize(
    ("state", "live_status", "ready_status", "code"),
    [
        (EngineState.STARTING, 200, 503, "starting"),
        (EngineState.READY, 200, 200, None),
        (EngineState.RESTARTING, 200, 503, "engine_unavailable"),
        (EngineState.DRAINING, 200, 503, "draining"),
        (EngineState.FAILED, 503, 503, "engine_unavailable"),
    ],
)
def test_health_tells_the_state(state: EngineState, live_status: int, ready_status: int, code: str | None) -> None:
    with serving(Behaviour(stays_starting=state is EngineState.STARTING)) as live:
        enter(live, state)
        assert live.engine.state is state
        assert_health(live, live_status, ready_status, code)
        new_work = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a", "seconds": 0.5})
        assert new_work.status_code == (200 if state is EngineState.READY else 503)


def enter(live: LiveServer, state: EngineState) -> None:
    """Bring a server to a state."""
    match state:
        case EngineState.RESTARTING:
            live.do(live.engine.workers.lose)
        case EngineState.DRAINING:
            live.begin(live.engine.drain()).result(5)
        case EngineState.FAILED:
            live.do(live.engine.workers.fail, StartError("no weights"))


def assert_health(live: LiveServer, live_status: int, ready_status: int, code: str | None) -> None:
    ready = httpx.get(f"{live.url}/readyz")
    assert httpx.get(f"{live.url}/livez").status_code == live_status
    assert ready.status_code == ready_status
    if code is not None:
        assert ready.json()["error"]["code"] == code
        assert "retry-after" in ready.headers


def test_a_start_tells_how_far_it_is() -> None:
    with serving(Behaviour(stays_starting=True)) as live:
        live.engine.workers.start_progress = "worker 0: reading hiar.pt 5.7 of 11.4 GB"
        message = httpx.get(f"{live.url}/readyz").json()["error"]["message"]
    assert message == "the engine is starting: worker 0: reading hiar.pt 5.7 of 11.4 GB"


def test_capabilities(live: LiveServer) -> None:
    answer = httpx.get(f"{live.url}/v1/capabilities").json()
    assert answer["mime"] == 'video/mp4; codecs="avc1.64000d"'
    assert (answer["sizes"], answer["fps"], answer["block_seconds"]) == (["416x240", "832x480"], 16, 0.75)
    assert answer["limits"]["max_seconds"] is None
    assert (answer["limits"]["max_per_client"], answer["needs_key"]) == (8, False)
    assert answer["facts"]["dtypes"]["activations"] == "float32" and answer["facts"]["dtypes"]["pages"] == "fp8"


def test_models_have_the_shape_that_openais_clients_read(live: LiveServer) -> None:
    models = httpx.get(f"{live.url}/v1/models").json()
    assert models["object"] == "list"
    (model,) = models["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("instant", "model", "hiar")
    assert model["created"] > 1_600_000_000 and model["sizes"] == ["416x240", "832x480"]
    assert httpx.get(f"{live.url}/v1/models/instant").json() == model
    missing = httpx.get(f"{live.url}/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_capabilities_before_the_model_is_loaded() -> None:
    with serving(Behaviour(stays_starting=True)) as live:
        answer = httpx.get(f"{live.url}/v1/capabilities").json()
    assert (answer["state"], answer["mime"], answer["facts"]) == ("starting", None, None)


def test_a_running_video_is_steered() -> None:
    with (
        serving(Behaviour(block_s=0.1)) as live,
        httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "a fox"}) as answer,
    ):
        video = f"{live.url}/v1/videos/{live.engine.opened[0].id}"
        assert httpx.get(video).json()["status"] == "in_progress"
        changed = httpx.post(video + "/prompt", json={"prompt": "a wolf"}).json()
        assert changed["block"] >= 1
        assert httpx.post(video + "/prompt", json={"prompt": ""}).json()["error"]["param"] == "prompt"
        assert httpx.delete(video).status_code == 200
        assert httpx.delete(video).status_code == 404
        eventually(lambda: live.engine.load.running == 0)
        answer.read()
        assert b'"cancelled"' in answer.content


def test_an_unknown_video_is_not_found(live: LiveServer) -> None:
    for answer in (
        httpx.get(f"{live.url}/v1/videos/s_9"),
        httpx.delete(f"{live.url}/v1/videos/s_9"),
        httpx.post(f"{live.url}/v1/videos/s_9/prompt", json={"prompt": "a"}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_player_is_served(live: LiveServer) -> None:
    page = httpx.get(live.url)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert httpx.get(f"{live.url}/player.js").headers["content-type"].startswith("text/javascript")
