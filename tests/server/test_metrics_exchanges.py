"""How streams end and requests are refused, as `/metrics` counts it; on instant workers, with short limits."""

import re
import socket
import subprocess
from typing import IO

import httpx
import pytest

from engine import CorruptLatents, EngineOptions, VideoHandle, WorkerLost
from hiar_client import Client
from tests.instant import Behaviour
from tests.server.live_server import QUICK, LiveServer, eventually, serving
from tests.server.scrape import Scrape, scrape
from tests.server.test_main import ENVIRONMENT, ROOT, assert_one_line, instant_command, run_real

pytestmark = pytest.mark.in_turn

VIDEO = {"prompt": "x", "seconds": 1}


def ask(live: LiveServer, **body: object) -> int:
    """The status of a request for a video, read to its end."""
    try:
        return httpx.post(f"{live.url}/v1/generate", json={**VIDEO, **body}).status_code
    except httpx.RemoteProtocolError:
        return 200


def told(now: Scrape, name: str, label: str) -> dict[str, float]:
    """What a counter counted, by the values of a label."""
    found = {value: now.total(name, **{label: value}) for value in now.label_values(label)}
    return {value: count for value, count in found.items() if count}


def finished(live: LiveServer) -> dict[str, float]:
    return told(scrape(live.url), "hiar_videos_finished_total", "reason")


def rejected(live: LiveServer) -> dict[str, float]:
    return told(scrape(live.url), "hiar_requests_rejected_total", "reason")


def test_a_video_that_the_servers_limit_ends() -> None:
    with serving(max_seconds=1.0) as live:
        assert httpx.post(f"{live.url}/v1/generate", json={"prompt": "x"}).status_code == 200
        assert finished(live) == {"limit": 1}


@pytest.mark.parametrize("fail_at", [0, 1], ids=["before the first segment", "after it"])
def test_a_video_that_the_engine_gives_up(fail_at: int) -> None:
    with serving(Behaviour(fail_at=fail_at, failure=CorruptLatents("NaN"))) as live:
        assert ask(live) == (200 if fail_at else 502)
        assert finished(live) == {"engine_error": 1}
        now = scrape(live.url)
        assert now.value("hiar_errors_total", component="video", kind="corrupt_latents") == 1
        assert now.value("hiar_errors_total", component="http", kind="corrupt_latents") == (0 if fail_at else 1)
        assert now.total("hiar_requests_rejected_total") == 0


def test_a_bug_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(video: VideoHandle) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(VideoHandle, "init_segment", property(bug))
    with serving() as live:
        assert ask(live, seconds=3600) == 500
        assert finished(live) == {"internal_error": 1}
        now = scrape(live.url)
        assert now.value("hiar_errors_total", component="http", kind="internal_error") == 1
        assert now.value("hiar_http_requests_total", method="POST", route="/v1/generate", code="500") == 1
        assert now.value("hiar_http_requests_in_flight", route="/v1/generate") == 0


def test_a_request_that_gets_no_place_in_time() -> None:
    quick = QUICK.__class__(first_fragment_timeout_s=0.3)
    with serving(Behaviour(holds_prompts=True), transport=quick) as live:
        assert ask(live) == 429
        assert finished(live) == {"timeout": 1} and rejected(live) == {"queue_timeout": 1}


def test_a_first_segment_that_does_not_come_is_no_refusal() -> None:
    quick = QUICK.__class__(first_fragment_timeout_s=0.3)
    with serving(Behaviour(first_block_s=5.0), transport=quick) as live:
        assert ask(live) == 504
        assert finished(live) == {"timeout": 1} and rejected(live) == {}
        assert scrape(live.url).value("hiar_errors_total", component="http", kind="first_segment_timeout") == 1


def test_refusals_by_reason() -> None:
    with serving(engine=EngineOptions(max_videos=1, max_queue=0)) as live, live.holding():
        assert ask(live) == 429
        assert ask(live, seconds=-1) == 400
        assert ask(live, prompt="x" * 100_000) == 413
        assert httpx.post(f"{live.url}/v1/generate", content=b"x").status_code == 415
        live.do(live.engine.workers.lose)
        assert ask(live) == 503
        assert finished(live) == {}
        live.do(live.engine.workers.serve)
        live.begin(live.engine.drain()).result(5)
        assert ask(live) == 503
        counts = {"queue_full": 1, "validation": 2, "too_large": 1, "not_ready": 1, "draining": 1}
        assert rejected(live) == counts and finished(live) == {"drain": 1}  # the video that was there
        assert scrape(live.url).value("hiar_engine_state", state="draining") == 1


def test_probes_that_fail_while_the_server_starts_are_no_errors() -> None:
    with serving(Behaviour(stays_starting=True)) as live:
        assert httpx.get(f"{live.url}/readyz").status_code == 503
        assert scrape(live.url).total("hiar_errors_total") == 0


def test_a_head_request_counts_as_get_and_an_unknown_method_as_other() -> None:
    with serving() as live:
        httpx.head(f"{live.url}/v1/models")
        httpx.put(f"{live.url}/v1/models")
        now = scrape(live.url)
        assert now.value("hiar_http_requests_total", method="GET", route="/v1/models", code="200") == 1
        assert now.value("hiar_http_requests_total", method="other", route="other", code="405") == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_that_is_asked_for(live: LiveServer, accept: str, content_type: str) -> None:
    answer = httpx.get(f"{live.url}/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in content_type)


@pytest.mark.slow
def test_metrics_on_a_port_of_their_own() -> None:
    with subprocess.Popen(
        instant_command("0.01", "--metrics-port", "0"), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said = _read_until_ready(process.stderr)
            main, own = re.findall(r"(?:listening|metrics) on (http://[0-9.:]+)", said)
            assert httpx.get(f"{main}/metrics").status_code == 404
            assert httpx.post(f"{main}/v1/generate", json=VIDEO).status_code == 200
            assert told(scrape(own), "hiar_videos_finished_total", "reason") == {"completed": 1}
            assert scrape(own).label_values("route") >= {"/v1/generate"}
            assert httpx.get(f"{own}/livez").status_code == 404
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def _read_until_ready(stderr: IO[str]) -> str:
    said = ""
    for line in stderr:
        said += line
        if "ready after" in line:
            return said
    raise AssertionError(said)


@pytest.mark.slow
def test_a_taken_metrics_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_one_line(run_real("--port", "0", "--metrics-port", port), f"cannot listen on 127.0.0.1:{port}")


def test_a_worker_that_is_lost_for_good_ends_a_video_as_its_own_kind() -> None:
    with serving(Behaviour(fail_at=1, failure=WorkerLost("gone"))) as live:
        ask(live)
        assert scrape(live.url).value("hiar_errors_total", component="video", kind="worker_lost") == 1


@pytest.mark.parametrize("address", ["/v1/generate", "/v1/videos"])
def test_a_refused_request_for_a_video_is_counted_wherever_it_was_asked(address: str) -> None:
    with serving() as live:
        assert httpx.post(live.url + address, json={"prompt": ""}).status_code == 400
        assert httpx.get(f"{live.url}/v1/videos?limit=0").status_code == 400
        now = scrape(live.url)
        assert now.value("hiar_requests_rejected_total", reason="validation") == 1
        assert now.value("hiar_errors_total", component="http", kind="invalid_request") == 2


def test_a_picture_that_stands_still_is_seen_while_it_does() -> None:
    """An alert looks at the rate: a stall that were counted at its end only would be seen when it is over."""
    with (
        serving(engine=EngineOptions(lead_target_s=0.1)) as live,
        Client(live.url) as client,
        client.generate("x") as video,
    ):
        shown = iter(video)
        for _ in range(3):
            next(shown)
        live.behaviour.block_s = 3600

        def stalled_s() -> float:
            return scrape(live.url).value("hiar_stream_stalled_seconds_total")

        eventually(lambda: stalled_s() > 0, 20)
        told = video.info()
        assert told.stalls == 1 and told.stalled_seconds > 0
        before = stalled_s()
        eventually(lambda: stalled_s() > before + 0.2, 10)
        now = scrape(live.url)
        assert now.total("hiar_errors_total") == now.total("hiar_engine_restarts_total") == 0, "late is no fault"
        assert told.status == "in_progress"
