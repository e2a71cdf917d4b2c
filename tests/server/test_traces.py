"""Traces of requests and videos, as a collector gets them over a real socket; and nothing of it where none is named."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from engine import CorruptLatents
from server.settings import Settings
from server.traces.traces import Traces
from tests.instant import Behaviour
from tests.server.live_server import QUICK, LiveServer, eventually
from tests.server.otlp_site import Collector, attributes, collecting
from tests.server.test_main import ENVIRONMENT, ROOT, assert_one_line, instant_command, running

pytestmark = pytest.mark.in_turn

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextmanager
def traced(
    monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour | None = None
) -> Iterator[tuple[LiveServer, Collector]]:
    """What the collector has is complete once the server has stopped."""
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        live = LiveServer(Settings(transport=QUICK), behaviour or Behaviour(), make_traces=Traces)
        live.start()
        try:
            yield live, collector
        finally:
            live.stop()


def test_a_request_and_its_video_are_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    with traced(monkeypatch) as (live, collector):
        answer = httpx.post(
            f"{live.url}/v1/generate?token=secret-word",
            json={"prompt": "a secret-word", "seconds": 2},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "Authorization": "Bearer secret-word"},
        )
        live.stop()
    (request,) = collector.named("POST /v1/generate")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/generate",
        "http.response.status_code": 200,
        "hiar.request_id": answer.headers["x-request-id"],
        "hiar.video_id": answer.headers["x-video-id"],
        "hiar.end_reason": "completed",
    }
    (video,) = collector.children(request)
    assert video.name == "video"
    told = {"hiar.video_id": answer.headers["x-video-id"], "hiar.end_reason": "completed", "hiar.blocks": 3}
    assert attributes(video) == told
    assert [span.name for span in collector.children(video)] == ["queued", "first block"]
    assert [event.name for event in video.events if event.name != "queued"] == ["prompt", "block", "block", "block"]
    times = [video.start_time_unix_nano, *(event.time_unix_nano for event in video.events), video.end_time_unix_nano]
    assert times == sorted(times)
    assert collector.services == {"hiar-server"}
    assert not [body for body in collector.bodies if b"secret-word" in body]


def test_failures_losses_and_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = Behaviour(block_s=0.05, fail_at=3, failure=CorruptLatents("NaN"))
    with traced(monkeypatch, behaviour) as (live, collector):
        made = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "seconds": 9}).json()["id"]
        eventually(lambda: live.engine.video(made).num_blocks is not None and len(live.engine.video(made).kept) > 0)
        live.do(live.engine.workers.lose)
        live.do(live.engine.workers.serve)
        eventually(lambda: live.engine.video(made).is_ended)
        httpx.get(f"{live.url}/v1/videos/a%20b")
        httpx.get(f"{live.url}/nothing")
        live.stop()
    (video,) = collector.named("video")
    assert attributes(video)["error.type"] == "corrupt_latents" and video.status.code == video.status.STATUS_CODE_ERROR
    recovery = collector.children(video)[-1]
    assert recovery.name == "recovery" and attributes(recovery)["hiar.exact"] is True
    refused = [span for span in collector.spans if attributes(span).get("error.type") == "not_found"]
    assert len(refused) == 2 and not any("hiar.video_id" in attributes(span) for span in refused)
    assert not [body for body in collector.bodies if b"nothing" in body or b"a b" in body]


def test_the_command_sends_what_is_left_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setitem(ENVIRONMENT, ENDPOINT, collector.url)
        with running("0.01") as (process, url):
            assert httpx.post(f"{url}/v1/generate", json={"prompt": "x", "seconds": 1}).status_code == 200
            process.terminate()
            assert process.wait(10) == 0
    assert len(collector.named("POST /v1/generate")) == len(collector.named("video")) == 1


def test_a_collector_that_is_not_there_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, ENDPOINT, "http://127.0.0.1:9")
    with running("0.01") as (process, url):
        assert httpx.post(f"{url}/v1/generate", json={"prompt": "x", "seconds": 1}).status_code == 200
        process.terminate()
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_without_its_packages_a_named_collector_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = "import sys; sys.modules['opentelemetry.sdk'] = None; from tests.server.serve_instant import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *instant_command("0.01")[3:]],
        cwd=ROOT,
        env={**ENVIRONMENT, ENDPOINT: "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert_one_line(done, ENDPOINT, "hiar-server[otel]")


def test_off_it_imports_nothing() -> None:
    check = (
        "import sys, server.main as main; assert main._traces({}) is None; "
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=ENVIRONMENT, check=False).returncode == 0
