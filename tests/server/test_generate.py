"""One stream from request to end, over real sockets."""

import itertools
import json
import logging
import socket
import threading
import time

import httpx
import pytest

from engine import CorruptLatents, EndReason, EngineOptions, Pace, PromptAt, Quality, VideoState, WorkerLost
from hiar_client.boxes import Box, BoxSplitter, signal
from server.settings import TransportLimits
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving
from tests.small_mp4 import CODECS

pytestmark = pytest.mark.in_turn


def kinds(boxes: list[Box]) -> list[str]:
    return [box.kind for box in boxes]


def request_bytes(body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content


def test_a_video_is_an_init_segment_then_fragments_then_an_end_box(live: LiveServer) -> None:
    answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox", "seconds": 2})
    boxes = list(BoxSplitter().feed(answer.content))
    assert answer.status_code == 200
    assert kinds(boxes) == ["ftyp", "moov", "moof", "mdat", "moof", "mdat", "moof", "mdat", "uuid"]
    assert signal(boxes[-1]) == {"type": "end", "reason": "completed", "last_block": 2}


def test_headers_describe_the_stream(live: LiveServer) -> None:
    answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox", "seconds": 1})
    assert answer.headers["content-type"] == f'video/mp4; codecs="{CODECS}"'
    assert answer.headers["x-video-id"] == live.engine.opened[0].id
    assert answer.headers["x-decoder"] == "none"
    assert answer.headers["x-request-id"].startswith("r_")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


def test_every_field_reaches_the_engine(live: LiveServer) -> None:
    body = {
        "prompt": [{"at_seconds": 0, "prompt": "a fox"}, {"at_seconds": 0.5, "prompt": "a wolf"}],
        "seconds": 1,
        "seed": 2**64 - 1,
        "size": "832x480",
        "fps": 24,
        "pace": "fast",
        "quality": "high",
        "model": "instant",
    }
    assert httpx.post(f"{live.url}/v1/generate", json=body).status_code == 200
    request = live.engine.opened[0].request
    assert request.prompts == (PromptAt(at_s=0, text="a fox"), PromptAt(at_s=0.5, text="a wolf"))
    assert (request.seconds, request.seed, request.fps) == (1, 2**64 - 1, 24)
    assert (request.width_px, request.height_px) == (832, 480)
    assert (request.pace, request.quality) == (Pace.FAST, Quality.HIGH)


def test_the_first_fragment_comes_before_the_last_is_made() -> None:
    with serving(Behaviour(block_s=0.3)) as live:
        body = {"prompt": "a fox", "seconds": 4}
        with httpx.stream("POST", f"{live.url}/v1/generate", json=body) as answer:
            data = next(answer.iter_raw())
            assert live.engine.opened[0].status().blocks_done == 1
            assert kinds(list(BoxSplitter().feed(data)))[:4] == ["ftyp", "moov", "moof", "mdat"]


def test_the_limit_of_the_server_ends_an_endless_video() -> None:
    with serving(max_seconds=1.5) as live:
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"})
        payload = signal(list(BoxSplitter().feed(answer.content))[-1])
        assert payload == {"type": "end", "reason": "limit", "last_block": 2}


def test_keep_alive_boxes_fill_a_pause() -> None:
    with serving(Behaviour(block_s=0.5, first_block_s=0.01)) as live:
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox", "seconds": 1})
        assert kinds(list(BoxSplitter().feed(answer.content))).count("free") == 2


def test_a_failure_before_the_first_fragment_is_a_status_code(live: LiveServer) -> None:
    live.behaviour.fail_at = 0
    for failure, status in ((CorruptLatents("NaN in block 0"), 502), (WorkerLost("a worker died"), 503)):
        live.behaviour.failure = failure
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"})
        assert answer.status_code == status
        told = {"code": failure.code, "message": failure.message, "param": None, "type": "server_error"}
        assert answer.json()["error"] == told
        assert ("retry-after" in answer.headers) == failure.retryable
    assert live.engine.load.running == 0


def test_a_failure_after_it_is_a_box_and_an_aborted_connection(
    live: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    live.behaviour.fail_at, live.behaviour.failure = 2, WorkerLost("a worker died")
    splitter, boxes = BoxSplitter(), []
    with (
        caplog.at_level(logging.DEBUG),
        httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "a fox"}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        for data in answer.iter_raw():
            boxes += splitter.feed(data)
    assert signal(boxes[-1]) == {
        "type": "error",
        "code": "worker_lost",
        "message": "a worker died",
        "retryable": True,
        "last_block": 1,
    }
    assert splitter.held_bytes == 0
    assert live.engine.load.running == 0


def test_no_first_fragment_in_time() -> None:
    transport = TransportLimits(first_fragment_timeout_s=0.2)
    with serving(Behaviour(block_s=9), transport) as live:
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "first_segment_timeout")
        assert live.engine.load.running == 0


def test_no_place_in_time() -> None:
    transport = TransportLimits(first_fragment_timeout_s=0.3)
    with serving(Behaviour(block_s=0.1), transport, engine=EngineOptions(max_videos=1)) as live, live.holding():
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_full_queue_refuses_at_once() -> None:
    with serving(Behaviour(block_s=0.1), engine=EngineOptions(max_videos=1, max_queue=0)) as live, live.holding():
        began_s = time.monotonic()
        answer = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert answer.headers["retry-after"] == "10"
        assert time.monotonic() - began_s < 4, "it waited as long as for a first fragment"


def test_closing_a_video_that_waits_ends_its_request() -> None:
    with serving(Behaviour(block_s=9)) as live:
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"}))
        )
        asking.start()
        eventually(lambda: bool(live.engine.opened))
        assert httpx.delete(f"{live.url}/v1/videos/{live.engine.opened[0].id}").status_code == 200
        asking.join()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (410, "gone")


@pytest.mark.parametrize("phase", ["queued", "before the first fragment", "between fragments"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_frees_its_place(phase: str, how: str) -> None:
    first_block_s = 9 if phase.startswith("before") else 0.01
    behaviour = Behaviour(block_s=0.2, first_block_s=first_block_s, holds_prompts=phase == "queued")
    with serving(behaviour) as live:
        connection = socket.create_connection(live.address)
        connection.sendall(request_bytes({"prompt": "a fox"}))
        eventually(lambda: live.engine.load.waiting + live.engine.load.running == 1)
        if phase == "between fragments":
            assert connection.recv(10).startswith(b"HTTP/1.1 2")
        video = live.engine.opened[0]
        eventually(lambda: video.status().state == (VideoState.QUEUED if phase == "queued" else VideoState.RUNNING))
        leave(connection, how)
        assert eventually(lambda: video.status().state == VideoState.ENDED) < 2
        assert video.end_reason is EndReason.CLIENT_DISCONNECT
        assert live.engine.load.running == live.engine.load.waiting == 0


def leave(connection: socket.socket, how: str) -> None:
    if how == "rst":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def test_a_client_that_leaves_behind_a_pipelined_request_is_seen() -> None:
    with serving(Behaviour(block_s=9)) as live:
        with socket.create_connection(live.address) as connection:
            connection.sendall(request_bytes({"prompt": "a fox"}) * 3)
            eventually(lambda: bool(live.engine.opened))
            connection.sendall(b"x" * 300_000)
        assert eventually(lambda: live.engine.load.running == 0) < 2
        assert len(live.engine.opened) == 1


@pytest.mark.slow
def test_a_reader_that_stops_is_cut_off_and_delays_nobody() -> None:
    behaviour = Behaviour(block_s=0.05, payload_bytes=200_000)
    with serving(behaviour) as live:
        stalled = socket.create_connection(live.address)
        stalled.sendall(request_bytes({"prompt": "a fox"}))
        arrived_s = arrival_times(f"{live.url}/v1/generate", {"prompt": "a fox", "seconds": 30, "pace": "fast"})
        waits_s = sorted(later - earlier for earlier, later in itertools.pairwise(arrived_s))
        assert waits_s[int(len(waits_s) * 0.9)] < 0.2
        eventually(lambda: live.engine.opened[0].status().state == VideoState.ENDED)
        stalled.close()


def arrival_times(url: str, body: dict[str, object]) -> list[float]:
    splitter, arrived_s = BoxSplitter(), []
    with httpx.stream("POST", url, json=body) as answer:
        for data in answer.iter_raw():
            arrived_s += [time.monotonic() for box in splitter.feed(data) if box.kind == "mdat"]
    return arrived_s


def test_an_http_1_0_client_gets_the_video_and_its_end(live: LiveServer) -> None:
    request = request_bytes({"prompt": "a fox", "seconds": 1}).replace(b"HTTP/1.1", b"HTTP/1.0")
    head, _, body = live.send_raw(request).partition(b"\r\n\r\n")
    assert b"200" in head.splitlines()[0]
    assert signal(list(BoxSplitter().feed(body))[-1]) is not None


def test_drain_ends_running_videos_in_band_and_refuses_new_ones() -> None:
    with serving(Behaviour(block_s=0.3), engine=EngineOptions(max_videos=1)) as live:
        ends: list[object] = []

        def watch() -> None:
            content = httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"}).content
            ends.append(signal(list(BoxSplitter().feed(content))[-1]))

        watching = threading.Thread(target=watch)
        watching.start()
        eventually(lambda: live.engine.load.running == 1 and live.engine.opened[0].status().blocks_done > 0)
        live.signal()
        eventually(lambda: live.engine.state == "draining")
        assert httpx.get(f"{live.url}/livez").status_code == 200
        for refused in (httpx.get(f"{live.url}/readyz"), httpx.post(f"{live.url}/v1/generate", json={"prompt": "x"})):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        watching.join()
        live.thread.join(5)
        assert not live.thread.is_alive()
    assert ends[0]["reason"] == "drain"  # type: ignore[index]


def test_a_second_signal_ends_at_once() -> None:
    with (
        serving(Behaviour(block_s=9, first_block_s=0.01)) as live,
        httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "a fox"}) as answer,
    ):
        next(answer.iter_raw())
        live.signal()
        live.signal()
        live.thread.join(3)
        assert not live.thread.is_alive()


def test_drain_does_not_wait_for_ever() -> None:
    with (
        serving(Behaviour(block_s=30, first_block_s=0.01), drain_timeout_s=0.3) as live,
        httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "a fox"}) as answer,
    ):
        next(answer.iter_raw())
        live.signal()
        live.thread.join(3)
        assert not live.thread.is_alive()


def test_what_waits_in_the_queue_is_refused_when_draining() -> None:
    with serving(Behaviour(holds_prompts=True)) as live:
        answers: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{live.url}/v1/generate", json={"prompt": "a fox"}))
        )
        asking.start()
        eventually(lambda: live.engine.load.waiting == 1)
        live.signal()
        asking.join()
        assert (answers[0].status_code, answers[0].headers["retry-after"]) == (503, "5")
        assert answers[0].json()["error"]["code"] == "draining"
