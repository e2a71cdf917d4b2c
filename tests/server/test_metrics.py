"""What `/metrics` says of a real server whose passes are sleeps: before, during and after videos and losses."""

import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from engine.manifest import read_manifest
from server.metrics.families import Families
from server.metrics.gpu import GpuCollector
from tests.server.rehearsed_server import FPS, RehearsedServer, Viewer, eventually, rehearsed_server
from tests.server.scrape import Scrape, fallen, parse, scrape
from tests.server.test_main import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

NUM_WORKERS, NUM_STAGES = 3, 4
BLOCK_BYTES = 3 * read_manifest(ROOT / "models" / "tiny").transformer.in_dim * 12 * 12 * 4
"""Of the latents of a block of 96x96 pixels, in float32."""
FLAGS = ("--stage-timeout", "1", "--max-queue", "0", "--max-videos", "1")


@dataclass
class Observed:
    server: RehearsedServer
    first: Scrape
    """Before anything was asked of it."""
    first_text: str

    def now(self) -> Scrape:
        return scrape(self.server.url)

    def watch(self, seconds: float, **wanted: object) -> Viewer:
        """A video from request to end."""
        viewer = Viewer(self.server, 1, seconds, **wanted)  # type: ignore[arg-type]
        viewer.finish()
        assert viewer.end is not None and viewer.end["reason"] == "completed"
        return viewer


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    with rehearsed_server(0.01, *FLAGS, workers=NUM_WORKERS) as server:
        text = httpx.get(f"{server.url}/metrics").text
        yield Observed(server, parse(text), text)


def grown(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


def test_every_family_has_its_series_before_any_traffic(observed: Observed) -> None:
    ours = {metric.name for metric in (*Families(NUM_STAGES).registry.collect(), *GpuCollector().collect())}
    assert ours <= observed.first.kinds.keys()
    childless = {family for family in ours if not any(name.startswith(family) for name, _ in observed.first.values)}
    unplanned = {"hiar_worker_memory_bytes"}  # a rehearsal holds nothing worth a plan
    assert childless == {name for name in ours if name.startswith("hiar_gpu_")} | unplanned  # no GPU here, no driver
    assert observed.first.value("hiar_nvml_available") == 0
    assert observed.first.label_values("rank") == {str(rank) for rank in range(NUM_WORKERS)}
    assert observed.first.label_values("edge") == {"0-1", "1-2"}
    assert observed.first.label_values("stage") == {*(f"denoise{s}" for s in range(NUM_STAGES)), "decode", "text"}
    assert observed.first.total("hiar_engine_state") == observed.first.value("hiar_engine_state", state="ready") == 1


def test_prometheus_own_tool_finds_no_fault(observed: Observed) -> None:
    promtool = shutil.which("promtool", path=str(ROOT / ".venv" / "tools")) or shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: make install-dev fetches it on Debian")
    check = subprocess.run(
        [promtool, "check", "metrics"], input=observed.first_text, capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_one_video_is_counted_to_the_last_frame(observed: Observed) -> None:
    seconds, num_blocks = 3, 5
    before = observed.now()
    video = observed.watch(seconds)
    num_transfers = num_blocks * (NUM_WORKERS - 1)
    last = {
        "hiar_encode_duration_seconds_count": num_blocks,
        "hiar_stage_transfer_bytes_total": num_transfers * BLOCK_BYTES,
    }
    eventually(lambda: {name: grown(before, observed.now(), name) for name in last} == last, 10)
    after = observed.now()
    assert not fallen(before, after)
    counts = {
        "hiar_blocks_generated_total": num_blocks,
        "hiar_blocks_delivered_total": num_blocks,
        "hiar_frames_generated_total": seconds * FPS,
        "hiar_video_generated_seconds_total": seconds,
        "hiar_video_delivered_seconds_total": seconds,
        "hiar_video_length_seconds_sum": seconds,
        "hiar_stream_sent_bytes_total": len(video.data),
        "hiar_block_interval_seconds_count": num_blocks - 1,
        "hiar_segment_size_bytes_count": num_blocks,
        "hiar_time_to_first_segment_seconds_count": 1,
        "hiar_video_queue_time_seconds_count": 1,
        "hiar_video_lifetime_seconds_count": 1,
        "hiar_video_realtime_factor_count": 1,
        "hiar_videos_finished_total": 1,
        "hiar_vae_decode_duration_seconds_count": num_blocks,
        "hiar_stage_transfer_duration_seconds_count": num_transfers,
        "hiar_stage_receive_wait_duration_seconds_count": num_transfers,
        "hiar_stage_transfer_bytes_total": num_transfers * BLOCK_BYTES,
        "hiar_blocks_late_total": 0,
        "hiar_errors_total": 0,
    }
    assert {name: grown(before, after, name) for name in counts} == pytest.approx(counts)
    assert grown(before, after, "hiar_videos_finished_total", reason="completed") == 1
    assert after.value("hiar_stage_last_block", stage="denoise0") == num_blocks - 1
    assert after.value("hiar_videos_running") == after.value("hiar_stream_buffered_segments") == 0


def test_the_time_of_workers_is_accounted_for(observed: Observed) -> None:
    before, began_s = observed.now(), time.monotonic()
    observed.watch(4)
    time.sleep(1.2)  # until workers at rest have spoken
    after, took_s = observed.now(), time.monotonic() - began_s
    for rank in map(str, range(NUM_WORKERS)):
        busy_s = grown(before, after, "hiar_stage_busy_seconds_total", rank=rank)
        idle_s = grown(before, after, "hiar_worker_idle_seconds_total", rank=rank)
        assert busy_s > 0.05 and idle_s > 1
        assert busy_s + idle_s < took_s + 1.5  # what rests before the first scrape is told after it
    passes = grown(before, after, "hiar_stage_busy_seconds_total", stage="denoise3", rank="2")
    in_forwards = grown(before, after, "hiar_stage_compute_duration_seconds_sum", stage="denoise3")
    assert passes == pytest.approx(in_forwards)  # the only stage of its worker
    assert grown(before, after, "hiar_worker_idle_seconds_total", rank="2", cause="input") > 0


def test_a_changed_prompt_is_timed_until_it_is_seen(observed: Observed) -> None:
    before = observed.now()
    viewer = Viewer(observed.server, 2, 6.0, pace="realtime")
    eventually(lambda: viewer.video is not None, 10)
    url = f"{observed.server.url}/v1/videos/{viewer.video}/prompt"
    assert httpx.post(url, json={"prompt": "something new"}).status_code == 200
    viewer.finish()
    after = observed.now()
    assert grown(before, after, "hiar_prompt_update_latency_seconds_count") == 1
    assert grown(before, after, "hiar_text_cache_misses_total") >= 1
    assert grown(before, after, "hiar_blocks_delivered_total", pace="realtime") == 9
    assert grown(before, after, "hiar_stream_lead_seconds_count") == 9 - 2  # playback begins with the second block


def test_refusals_and_ends_are_told_apart(observed: Observed) -> None:
    before, url = observed.now(), observed.server.url
    wrong = httpx.post(f"{url}/v1/generate", json={"prompt": ""})
    endless = Viewer(observed.server, 3, None, pace="realtime")
    eventually(lambda: endless.num_blocks > 0, 10)
    assert observed.now().value("hiar_videos_running") == observed.now().value("hiar_video_slots") == 1
    no_room = httpx.post(f"{url}/v1/generate", json={"prompt": "x", "size": "96x96"})
    assert (wrong.status_code, no_room.status_code) == (400, 429)
    httpx.delete(f"{url}/v1/videos/{endless.video}")
    endless.finish()
    with httpx.stream("POST", f"{url}/v1/generate", json={"prompt": "x", "size": "96x96"}) as leaving:
        next(leaving.iter_raw())
    reasons = ("client_disconnect", "client_cancel")
    eventually(lambda: grown(before, observed.now(), "hiar_videos_finished_total", reason=reasons[0]), 10)
    after = observed.now()
    finished = {reason: grown(before, after, "hiar_videos_finished_total", reason=reason) for reason in reasons}
    assert finished == dict.fromkeys(reasons, 1) and grown(before, after, "hiar_videos_finished_total") == 2
    for reason in ("validation", "queue_full"):
        assert grown(before, after, "hiar_requests_rejected_total", reason=reason) == 1
    for code, status in (("invalid_request", "400"), ("overloaded", "429")):
        assert grown(before, after, "hiar_errors_total", component="http", kind=code) == 1
        assert grown(before, after, "hiar_http_requests_total", route="/v1/generate", code=status) == 1


@pytest.mark.parametrize(("name", "reason"), [("SIGKILL", "died"), ("SIGSTOP", "hung")])
def test_counters_never_fall_when_a_worker_is_lost(observed: Observed, name: str, reason: str) -> None:
    scrapes = [observed.now()]
    seconds = 20.0
    viewer = Viewer(observed.server, 4, seconds)
    eventually(lambda: viewer.num_blocks > 5, 20)
    scrapes.append(observed.now())
    observed.server.signal_worker(1, signal.Signals[name])
    eventually(lambda: not observed.server.is_ready(), 10)
    while not observed.server.is_ready():
        scrapes.append(observed.now())
        time.sleep(0.1)
    viewer.finish()
    scrapes.append(observed.now())
    for before, after in itertools.pairwise(scrapes):
        assert not fallen(before, after)
    lost = scrapes[2]
    assert lost.value("hiar_engine_state", state="restarting") == 1 and lost.total("hiar_engine_state") == 1
    assert lost.total("hiar_worker_up") == 0 and lost.total("hiar_kv_cache_usage_ratio") == 0
    assert not [series for series in lost.values if series[0] == "hiar_worker_last_heartbeat_timestamp_seconds"]
    first, last = scrapes[0], scrapes[-1]
    assert grown(first, last, "hiar_engine_restarts_total", reason=reason) == 1
    assert grown(first, last, "hiar_worker_losses_total", rank="1", reason=reason) == 1
    assert grown(first, last, "hiar_worker_losses_total") == 1
    assert grown(first, last, "hiar_engine_recovery_duration_seconds_count") == 1
    assert grown(first, last, "hiar_videos_recovered_total", way="exact") == 1
    assert grown(first, last, "hiar_videos_finished_total", reason="completed") == 1
    assert grown(first, last, "hiar_video_generated_seconds_total") == pytest.approx(seconds)
    assert last.total("hiar_worker_up") == NUM_WORKERS


def test_traffic_makes_no_new_series_and_no_id_is_a_label(
    observed: Observed, capsys: pytest.CaptureFixture[str]
) -> None:
    with httpx.Client(base_url=observed.server.url) as client:
        for number in range(12):
            client.get(f"/path/{number}")
            client.get(f"/v1/videos/s_{number:024x}")
            client.request(f"VERB{number}", "/v1/generate")
            client.post("/v1/generate", json={"prompt": "x", "model": f"model {number}"})
    text = httpx.get(f"{observed.server.url}/metrics").text
    now = parse(text)
    assert now.values.keys() == observed.first.values.keys()
    assert not re.search(r"[sr]_[0-9a-f]{8}|VERB|/path", text)
    with capsys.disabled():
        sys.stdout.write(f"\n{len(now.values)} series with {NUM_WORKERS} workers and {NUM_STAGES} stages\n")
