"""Clients that take nothing, or a trickle: each is cut off, says so in the metrics, and holds nothing from others."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import httpx
import pytest

from engine import EndReason, EngineOptions
from server.videos.live import HideAborts
from tests.instant import Behaviour
from tests.server.live_server import QUICK, LiveServer, eventually, serving
from tests.server.scrape import scrape
from tests.server.test_metrics_exchanges import finished

pytestmark = pytest.mark.in_turn

SMALL = 4096
PATIENT = replace(QUICK, send_timeout_s=60.0, slow_window_s=1.0)


def asking(live: LiveServer, head: str, body: str = "", host: str = "127.0.0.1") -> socket.socket:
    """A connection that asked for something and has little room for the answer."""
    connection = socket.socket()
    connection.bind((host, 0))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    connection.connect(live.address)
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head} HTTP/1.1\r\n{fields}\r\n\r\n{body}".encode())
    return connection


@contextmanager
def trickling(live: LiveServer, host: str = "127.0.0.1") -> Iterator[None]:
    """A viewer that reads a few bytes at a time, until it is cut off."""
    connection, over = asking(live, "POST /v1/generate", '{"prompt": "x"}', host), threading.Event()

    def read() -> None:
        try:
            while connection.recv(16) and not over.wait(0.02):
                pass
        except ConnectionResetError:
            pass

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield
    finally:
        over.set()
        reading.join()
        connection.close()


def test_a_reader_that_stops_is_a_slow_client_though_the_kernel_has_room() -> None:
    """What it does not take fits into the buffers, so no send ever waits."""
    with serving(Behaviour(block_s=0.01, payload_bytes=3000)) as live:
        with asking(live, "POST /v1/generate", '{"prompt": "x"}'):
            eventually(lambda: finished(live) == {"slow_client": 1}, 10)
        assert live.engine.opened[0].end_reason is EndReason.SLOW_CLIENT


def test_what_a_client_that_takes_nothing_was_sent() -> None:
    """Room for far less than one block is all that it has, so a second one waits until it is cut off."""
    block_bytes = 4_000_000
    with serving(Behaviour(payload_bytes=block_bytes)) as live:
        with asking(live, "POST /v1/generate", '{"prompt": "x"}'):
            eventually(lambda: finished(live) == {"slow_client": 1}, 10)
        now = scrape(live.url)
        assert now.value("hiar_stream_send_blocked_seconds_total") >= QUICK.send_timeout_s
        assert block_bytes < now.value("hiar_stream_sent_bytes_total", protocol="fmp4") < 2 * block_bytes


def test_the_kernel_waits_longer_than_the_server_for_who_takes_nothing_or_little() -> None:
    with serving() as live, asking(live, "POST /v1/generate", '{"prompt": "x"}'):
        assert live.server is not None
        eventually(lambda: bool(live.engine.opened))
        (connection,) = live.server.server_state.connections
        wire = connection.transport.get_extra_info("socket")
        kernel_s = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000
        assert 1 < kernel_s - max(QUICK.send_timeout_s, QUICK.slow_window_s) < 5


def test_a_reader_slower_than_half_the_video_is_a_slow_client() -> None:
    behaviour = Behaviour(block_s=0.01, payload_bytes=30_000)
    with serving(behaviour, PATIENT) as live, trickling(live):
        eventually(lambda: finished(live) == {"slow_client": 1}, 10)


def test_ten_slow_clients_do_not_keep_others_out() -> None:
    behaviour, options = Behaviour(block_s=0.01, payload_bytes=30_000), EngineOptions(max_videos=2, max_queue=8)
    with serving(behaviour, PATIENT, engine=options, max_per_client=20) as live, ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(trickling(live))
        eventually(lambda: live.engine.load.waiting == 8)
        assert httpx.post(f"{live.url}/v1/generate", json={"prompt": "x", "seconds": 1}).status_code == 429
        eventually(lambda: finished(live).get("slow_client", 0) >= 2, 10)
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "x", "seconds": 1}, timeout=30)
        assert answer.status_code == 200


def test_who_comes_from_elsewhere_goes_before_the_third_of_a_slow_client() -> None:
    behaviour, options = Behaviour(block_s=0.01, payload_bytes=30_000), EngineOptions(max_videos=2, max_queue=8)
    with serving(behaviour, PATIENT, engine=options) as live, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(trickling(live, "127.0.0.2"))
        eventually(lambda: live.engine.load.waiting == 6)
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "x", "seconds": 1}, timeout=30)
        assert answer.status_code == 200
        assert live.engine.load.waiting >= 1, "it waited behind them all"


@pytest.mark.parametrize("path", ["content", "blocks/1.m4s"])
def test_who_takes_nothing_of_a_file_or_a_segment_is_cut_off(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Behaviour(payload_bytes=4_000_000)) as live:
        made = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "seconds": 1}).json()["id"]
        eventually(lambda: live.engine.video(made).is_ended)
        assert live.server is not None
        with asking(live, f"GET /v1/videos/{made}/{path}"), caplog.at_level("INFO", "hiar.access"):
            eventually(lambda: f"/v1/videos/{made}/{path} 200" in caplog.text, 10)
        (line,) = [record.getMessage() for record in caplog.records if path in record.getMessage()]
        assert line.endswith("slow_client")
        eventually(lambda: not live.server.server_state.connections)  # type: ignore[union-attr]
        assert not [record for record in caplog.records if record.exc_info and HideAborts().filter(record)]


def test_who_takes_nothing_of_the_events_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    transport = replace(QUICK, send_buffer_bytes=SMALL)
    with serving(Behaviour(block_s=0.001), transport) as live:
        made = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "seconds": 3600}).json()["id"]
        with asking(live, f"GET /v1/videos/{made}/events"), caplog.at_level("INFO", "hiar.access"):
            eventually(lambda: f"/v1/videos/{made}/events 200" in caplog.text, 10)
        assert "slow_client" in caplog.text
