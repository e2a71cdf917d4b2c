"""A server with real workers whose passes are sleeps, watched by a real Prometheus while it works and loses a worker.

GPU readings come from the server's own collector beside it, which is given numbers in place of NVML's, and so does the
memory of workers, of which a rehearsal has none worth a plan: so their panels are tested on machines without a GPU.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Event, Thread

import httpx
from prometheus_client import CollectorRegistry, start_http_server

from server.metrics.families import Families
from server.metrics.gpu import GpuCollector, GpuReading
from server.metrics.gpu_families import GPU_FAMILIES
from server.metrics.work import TOTAL
from tests.deploy.expressions import RULES
from tests.deploy.real_prometheus import SCRAPE_S, RealPrometheus, real_prometheus
from tests.server.rehearsed_server import SIZE, RehearsedServer, Viewer, eventually, rehearsed_server

PASS_S = 0.03


@contextlib.contextmanager
def observed_server(folder: Path) -> Iterator[RealPrometheus]:
    """After the work; the server still runs, with one video in the making."""
    with rehearsed_server(PASS_S, "--max-queue", "1", workers=2) as server, _gpu_readings() as gpus:
        targets = [server.url.removeprefix("http://"), gpus]
        with real_prometheus(folder, targets, RULES) as prometheus:
            eventually(lambda: prometheus.query("hiar_build_info and on () hiar_gpu_info"), 20)
            _work(server)
            _settle(prometheus)
            yield prometheus


def _work(server: RehearsedServer) -> None:
    """Two videos run, one waits, one is refused; one is steered; a worker is killed; a client asks for nonsense."""
    steered, fast = Viewer(server, 1, None, pace="realtime"), Viewer(server, 2, 20)
    eventually(lambda: steered.num_blocks and fast.num_blocks, 30)
    waiting = Viewer(server, 3, 2)
    eventually(lambda: server.load()["waiting"] == 1, 10)
    assert _ask(server, {"prompt": "x", "size": SIZE}) == 429
    assert _ask(server, {"prompt": "x", "nonsense": 1}) == 400
    _steer(server, steered)
    server.signal_worker(1, signal.SIGKILL)
    eventually(lambda: not server.is_ready(), 10)
    eventually(server.is_ready, 60)
    waiting.finish()
    fast.finish()


def _settle(prometheus: RealPrometheus) -> None:
    """Until Prometheus has what was counted last, and rules have been worked out from it."""
    eventually(lambda: prometheus.query('hiar_videos_finished_total{reason="completed"} >= 2'), 20)
    eventually(lambda: prometheus.query("hiar_videos_running == 1"), 20)
    time.sleep(2 * SCRAPE_S)


def _ask(server: RehearsedServer, body: dict[str, object]) -> int:
    return httpx.post(f"{server.url}/v1/generate", json=body).status_code


def _steer(server: RehearsedServer, viewer: Viewer) -> None:
    before = viewer.num_blocks
    answer = httpx.post(f"{server.url}/v1/videos/{viewer.video}/prompt", json={"prompt": "another"})
    assert answer.status_code == 200, answer.text
    eventually(lambda: viewer.num_blocks > before + 2, 30)


@contextlib.contextmanager
def _gpu_readings() -> Iterator[str]:
    """Serves readings of two GPUs that grow every second. Yields host:port."""
    registry, collector, stopping = CollectorRegistry(), GpuCollector(), Event()
    registry.register(collector)
    memory = Families(1).workers.memory
    registry.register(memory)
    for source in ("planned", "measured"):
        memory.labels("0", TOTAL, source).set(60e9)
    collector.is_available = True

    def read() -> None:
        for reading in count(1):
            collector.readings = tuple(_reading(index, float(reading)) for index in range(2))
            if stopping.wait(SCRAPE_S):
                return

    thread = Thread(target=read)
    thread.start()
    httpd, serving = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{httpd.server_port}"
    finally:
        stopping.set()
        thread.join()
        httpd.shutdown()
        httpd.server_close()
        serving.join()


def _reading(index: int, value: float) -> GpuReading:
    labels = {None: (None,), "reason": ("power_cap", "hw_thermal"), "kind": ("corrected", "uncorrected")}
    values = tuple((family.name, label, value) for family in GPU_FAMILIES for label in labels[family.label])
    return GpuReading(gpu=str(index), uuid=f"GPU-{index}", name="a GPU", driver="1", values=values)
