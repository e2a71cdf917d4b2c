"""The client library against the real HTTP server on workers that need no process."""

import socket
import threading
from collections.abc import Iterator

import pytest

from engine import EngineOptions, WorkerLost
from hiar_client.client import End, HiarClient, HiarError
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


def test_a_video_comes_in_fragments_with_their_lengths(live: LiveServer) -> None:
    with HiarClient(live.url) as client, client.generate("a fox", seconds=2, fps=16) as video:
        fragments = list(video)
    assert [fragment.block for fragment in fragments] == [0, 1, 2]
    assert [fragment.num_frames for fragment in fragments] == [9, 12, 11]
    assert sum(fragment.duration_s for fragment in fragments) == 2.0
    assert video.end == End(reason="completed", last_block=2)
    assert video.init_segment[4:8] == b"ftyp"


def test_a_list_of_prompts(live: LiveServer) -> None:
    with HiarClient(live.url) as client, client.generate([(0, "a fox"), (1, "a wolf")], seconds=2) as video:
        list(video)
    assert [prompt.text for prompt in live.engine.opened[0].request.prompts] == ["a fox", "a wolf"]


def test_a_refusal_names_the_field(live: LiveServer) -> None:
    with HiarClient(live.url) as client, pytest.raises(HiarError) as caught:
        client.generate("a fox", size="8x8", seed=-1)
    assert (caught.value.code, caught.value.param, caught.value.status) == ("invalid_request", "seed", 400)


@pytest.mark.parametrize(("prompt", "seconds"), [("\udcff", 1.0), ("a fox", float("nan"))])
def test_values_that_json_cannot_hold_are_refused_by_the_server(live: LiveServer, prompt: str, seconds: float) -> None:
    with HiarClient(live.url) as client, pytest.raises(HiarError) as caught:
        client.generate(prompt, seconds=seconds)
    assert caught.value.status == 400


def test_overload_says_when_to_come_back() -> None:
    with (
        serving(engine=EngineOptions(max_videos=1, max_queue=0)) as live,
        live.holding(),
        HiarClient(live.url) as client,
        pytest.raises(HiarError) as caught,
    ):
        client.generate("a fox")
    assert (caught.value.code, caught.value.retryable, caught.value.retry_after_s) == ("overloaded", True, 10.0)


def test_a_failure_on_the_way_is_typed() -> None:
    behaviour = Behaviour(fail_at=2, failure=WorkerLost("a worker died"))
    with serving(behaviour) as live, HiarClient(live.url) as client:
        video = client.generate("a fox")
        with pytest.raises(HiarError) as caught:
            list(video)
        video.close()
    assert (caught.value.code, caught.value.retryable) == ("worker_lost", True)


def test_leaving_the_block_cancels() -> None:
    with serving(Behaviour(block_s=0.05)) as live, HiarClient(live.url) as client:
        with client.generate("a fox") as video:
            next(iter(video))
            assert client.video(video.id)["status"] == "in_progress"
            assert client.change_prompt(video.id, "a wolf") >= 1
        assert eventually(lambda: live.engine.load.running == 0) < 2


def test_cancelling_by_id_ends_the_video_in_band() -> None:
    with serving(Behaviour(block_s=0.05)) as live, HiarClient(live.url) as client:
        with client.generate("a fox") as video:
            client.cancel(video.id)
            list(video)
        assert video.end is not None
        assert video.end.reason == "cancelled"


def test_models_and_capabilities(live: LiveServer) -> None:
    with HiarClient(live.url) as client:
        assert client.models()[0]["id"] == "instant"
        assert client.capabilities()["state"] == "ready"


@pytest.mark.parametrize(("url", "code"), [("http://127.0.0.1:1", "unreachable"), ("127.0.0.1", "bad_url")])
def test_no_server(url: str, code: str) -> None:
    with pytest.raises(HiarError) as caught, HiarClient(url) as client:
        client.models()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n\r\nhi", "unexpected_answer"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nhi", "unexpected_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: video/mp4\r\n\r\n<!doctype", "bad_stream"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Type: video/mp4\r\n\r\n\0\0\0\x08free", "stream_cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Type: video/mp4\r\n\r\n\0\0\0\x08free", "stream_cut"),
        (b"", "unreachable"),
    ],
)
def test_what_is_not_our_server(answer: bytes, code: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    answering = threading.Thread(target=answer_once, daemon=True)
    answering.start()
    with HiarClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client, pytest.raises(HiarError) as caught:
        client.generate("a fox")
    answering.join()
    listener.close()
    assert caught.value.code == code
